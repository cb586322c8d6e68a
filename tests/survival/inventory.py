"""Which kinds of faults, found by trying other people's complaints and hostile files on the harness, have a test.

Each kind goes by the number that it was filed under, and is named in words; its tests are named by file and function.
`make benchmarks SUBJECT=survival` counts the kinds that have one.
"""

from collections.abc import Mapping

Tests = tuple[str, ...]

KINDS: Mapping[int, tuple[str, Tests]] = {
    1: (
        "pruning that is not what was asked for",
        (
            "compression/test_pruning.py::test_with_least_the_parameters_left_fall_with_the_amount",
            "reporting/test_rows.py::test_pruning_that_is_not_what_was_asked_for_is_noted",
        ),
    ),
    2: (
        "counts that hold for one form of file only",
        ("model_files/test_parameters.py::test_a_network_has_as_many_parameters_in_every_form",),
    ),
    3: (
        "the environment swaps what is measured",
        (
            "bench/test_process.py::test_the_caller_s_variables_do_not_reach_a_measuring_process",
            "commands/test_bench_job.py::"
            "test_a_job_runs_in_the_environment_of_its_headline_engine_whatever_the_caller_s_variables",
        ),
    ),
    4: (
        "a warning that counts the wrong thing",
        ("bench/test_latency.py::test_what_is_precise_is_not_reported_as_imprecise_for_not_having_settled",),
    ),
    5: (
        "variables of notebooks and shells",
        (
            "reporting/test_charts.py::test_the_environments_backend_does_not_matter",
            "survival/test_odd_environments.py::test_a_shell_of_any_kind_gets_an_answer_and_no_traceback",
        ),
    ),
    6: (
        "characters in paths that a library takes for patterns",
        (
            "bench/test_process.py::test_a_checkout_may_have_any_name",
            "commands/test_measure_one.py::test_a_log_that_an_error_names_stays_and_nothing_else_does",
            "reporting/test_report.py::test_a_folder_with_blanks_and_brackets_is_linked",
        ),
    ),
    7: (
        "a full disk at any write",
        (
            "test_files.py::test_what_finds_no_room_is_one_line_and_leaves_what_was_there",
            "survival/test_full_disk.py::test_what_finds_no_room_is_one_line_and_nothing_is_half_written",
            "transfer/test_packing.py::test_a_full_disk_is_an_error_in_one_line_and_leaves_the_earlier_pack",
            "transfer/test_unpacking.py::test_a_full_disk_is_an_error_in_one_line_and_leaves_what_was_there",
        ),
    ),
    8: (
        "a user without a home or a name",
        ("containers/test_runner.py::test_a_user_without_a_home_or_a_name_runs_here",),
    ),
    9: (
        "text of the user's that a library interprets",
        ("reporting/test_charts.py::test_twelve_methods_with_titles_of_any_kind_are_drawn",),
    ),
    10: (
        "children outlive their parent",
        (
            "commands/test_bench_stopped.py::test_a_bench_that_is_ended_measures_no_more_and_lets_go_of_its_lock",
            "bench/test_process.py::test_the_measuring_process_dies_with_a_killed_parent",
        ),
    ),
    11: (
        "make in parallel",
        ("test_makefile.py::test_goals_are_made_one_after_the_other_however_many_jobs_make_may_run",),
    ),
    12: (
        "an engine reached as the docker command reaches it",
        (
            "containers/test_docker_engine.py::test_an_engine_behind_certificates_is_reached_by_variables",
            "containers/test_docker_engine.py::test_an_engine_behind_certificates_is_reached_by_a_context",
        ),
    ),
    13: (
        "a download that was interrupted",
        (
            "datasets/test_cifar100.py::test_an_interrupted_download_leaves_nothing_that_stands_in_the_way_of_the_next",
            "datasets/test_cifar100.py::test_a_download_that_is_not_whole_is_made_again",
        ),
    ),
    14: (
        "ONNX with a fixed batch",
        ("commands/test_any_classifier.py::test_the_input_says_size_batch_and_layout",),
    ),
    15: (
        "ONNX with external data",
        (
            "model_files/test_onnx_file.py::test_external_data_is_hashed_and_counts_to_the_size",
            "commands/test_latency_files.py::test_every_kind_of_file_is_measured",
        ),
    ),
    16: (
        "the runtime's own warnings",
        ("bench/test_process.py::test_what_the_engine_prints_is_kept",),
    ),
    17: (
        "checkpoints as people save them",
        (
            "model_files/test_weights.py::test_what_trainers_wrap_around_a_state_dict_is_removed",
            "model_files/test_weights.py::test_prefixes_are_removed_in_safetensors_too",
        ),
    ),
    18: (
        "a pickle is opened before it is verified",
        (
            "datasets/test_cifar100.py::test_a_pickle_that_is_not_the_official_one_is_never_opened",
            "survival/test_hostile_files.py::test_nothing_in_a_file_is_run",
        ),
    ),
    19: (
        "a hash that is checked against the wrong file",
        ("transfer/test_unpacking.py::test_a_pack_with_a_fault_is_refused_and_nothing_is_put_in_place",),
    ),
    20: (
        "a path that leaves its folder",
        (
            "transfer/test_merging.py::test_nothing_is_read_through_a_link_out_of_the_folder",
            "store/test_lock.py::test_a_link_in_the_locks_place_is_not_followed",
            "cli/test_transfer_verbs.py::test_a_profile_that_is_a_path_is_an_error_in_one_line_and_nothing_is_written",
        ),
    ),
    21: (
        "text of the user's that is put into a document",
        (
            "reporting/test_escaping.py::test_what_markdown_would_take_for_markup_is_escaped",
            "reporting/test_foot.py::test_a_message_cannot_become_a_marker",
        ),
    ),
    22: (
        "sizes taken at their word",
        (
            "model_files/test_weights.py::"
            "test_a_network_larger_than_its_metadata_allows_is_refused_before_its_tensors_are_read",
            "model_files/test_parameters.py::test_only_headers_are_read",
        ),
    ),
    23: (
        "derived figures are believed",
        ("checks/test_catalogue.py::test_a_planted_fault_is_found_by_its_check_alone_in_its_rows_alone",),
    ),
    24: (
        "false alarms",
        (
            "benchmarks/test_planted_figures.py::"
            "test_runs_that_nothing_has_disturbed_raise_no_alarm_however_they_are_merged",
        ),
    ),
    25: (
        "a result that nobody made",
        ("training/test_pipeline.py::test_a_finished_cell_leaves_no_checkpoint_that_could_become_its_result",),
    ),
    26: (
        "host paths in records",
        (
            "store/test_records.py::test_a_failure_names_no_folder_of_the_machine",
            "survival/test_killed.py::test_records_say_nothing_of_the_user_or_the_host",
        ),
    ),
    27: (
        "an intermediate is taken up after what it was made from has changed",
        (
            "training/test_pipeline.py::test_after_the_teacher_was_replaced_nothing_of_the_old_one_is_used",
            "checks/test_remedies.py::test_a_remedy_that_is_followed_ends_with_the_check_content",
        ),
    ),
    28: (
        "edited code leaves results as they were",
        ("training/test_drop_in.py::test_a_network_pruned_by_code_that_was_edited_since_is_made_again",),
    ),
    29: (
        "files beside the records are read as records",
        (
            "checks/test_comparison.py::test_files_beside_the_records_are_named_once_and_left_alone",
            "survival/test_killed.py::test_what_a_killed_writer_leaves_counts_for_nothing_and_is_swept_away",
        ),
    ),
    30: (
        "the last, smaller batch weighs like a full one",
        ("compression/test_calibration.py::test_every_image_has_the_same_weight",),
    ),
    31: (
        "throughput by the nominal batch",
        ("training/test_loop.py::test_throughput_counts_the_images_that_were_seen",),
    ),
    32: (
        "a second run overwrites the first",
        ("commands/test_train_one.py::test_a_model_made_with_other_options_is_not_overwritten",),
    ),
    33: (
        "two checks of one thing with two limits",
        ("checks/test_catalogue.py::test_a_file_that_passes_the_parity_gate_passes_the_check",),
    ),
    34: (
        "NaN in a sort",
        ("reporting/test_rows.py::test_an_accuracy_that_is_no_number_orders_no_other_row",),
    ),
    35: (
        "a model is used at another size than it was trained at",
        ("commands/test_train_one.py::test_another_size_than_the_checkpoints_is_refused",),
    ),
    36: (
        "a stand-in is measured as if it were the data",
        (
            "datasets/test_datasets.py::"
            "test_a_named_folder_without_the_data_is_an_error_and_never_a_reason_for_the_fallback",
            "commands/test_measure_one.py::test_a_named_folder_without_the_data_is_an_error",
        ),
    ),
    37: (
        "a forgotten variable makes finished work stale",
        ("store/test_paths.py::test_without_the_data_at_hand_it_is_what_the_models_on_record_were_trained_on",),
    ),
    38: (
        "unlike things are compared",
        ("checks/test_comparison.py::test_runs_under_other_bench_settings_are_refused_naming_both",),
    ),
    39: (
        "the environment skews a timing",
        ("bench/test_process.py::test_a_measuring_process_has_the_variables_that_it_is_given_and_no_others",),
    ),
    40: (
        "restricting one table spoils another",
        (
            "commands/test_bench_job.py::test_what_other_tables_show_is_measured_along_with_a_table",
            "commands/test_bench_job.py::test_a_table_is_not_measured_where_that_would_break_another_one",
        ),
    ),
    41: (
        "stale pictures pass",
        (
            "reporting/test_report.py::test_a_png_that_is_another_chart_or_was_edited_or_damaged_is_stale",
            "reporting/test_report.py::test_files_that_no_experiment_owns_are_named",
        ),
    ),
    42: (
        "options without effect",
        (
            "commands/test_train_one.py::test_a_warm_up_that_epochs_leave_no_room_for_keeps_its_share",
            "plan/test_planning.py::test_an_axis_without_any_effect_is_refused",
        ),
    ),
    43: (
        "a limit that one room sees and another does not",
        ("training/test_memory.py::test_every_room_sees_the_limit_of_a_group_around_this_process",),
    ),
    44: (
        "a file's time stands for its content",
        ("test_makefile.py::test_an_environment_is_not_made_again_for_the_time_of_a_file",),
    ),
    45: (
        "an error class that nobody expected",
        (
            "store/test_lock.py::test_a_file_system_without_locks_is_an_error_in_one_line",
            "survival/test_hostile_input.py::test_any_matrix_is_a_plan_or_one_line",
            "survival/test_hostile_input.py::test_any_record_is_shown_or_named_in_one_line",
        ),
    ),
    46: (
        "scratch figures reach the README",
        (
            "checks/test_commands.py::test_a_report_of_scratch_results_leaves_the_checkouts_readme_alone",
            "cli/test_options.py::test_figures_made_elsewhere_reach_no_document_unless_it_is_named",
        ),
    ),
}
