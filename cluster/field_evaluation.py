"""`sr3 evaluate --run RUN` where the run makes fields: ensembles, and their proper scores."""

from shlex import quote

from cluster.loading import loading
from cluster.session import ray_session
from pipelines.settings.evaluate import EvaluateConfig


def evaluate_run_of_fields(location: str, config: EvaluateConfig, data: str | None, address: str | None) -> None:
    """Make ensembles, score them, and print what the scores say; the caller has the right to evaluate the run."""
    with loading():
        from pipelines.evaluation.fields.evaluate import describe, evaluate_fields
        from pipelines.evaluation.fields.scores import tabulate

    check_run_of_fields(location, config, data, remember=True)
    with ray_session(address):
        result = evaluate_fields(location, config)
    print("\n".join([*tabulate(result), "", *describe(result), f"next: sr3 report {quote(location)}"]))


def check_run_of_fields(location: str, config: EvaluateConfig, data: str | None, remember: bool) -> str:
    """What would be measured, in words; checks that it is there, and with `remember` notes where moved data are."""
    from pipelines.evaluation.fields.evaluate import stage_of_fields
    from pipelines.runs.run_data import remember_data, require_data, with_data
    from pipelines.runs.run_folder import open_run

    run = with_data(open_run(location), data)
    stage, _ = stage_of_fields(run)
    require_data(run, stage.config.data_stage, config.split, fields=True)
    stage.check_weights()
    stage.schedule(config.schedule, few_steps=True)
    if remember:
        remember_data(run)
    return f"ensembles of {config.num_members} members by {stage.name} of {location} on {config.split} samples"
