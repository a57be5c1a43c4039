"""The table of steps counts the jobs that Snakemake plans."""

from collections import Counter

import pytest

from s2txai.errors import UserError
from s2txai.study import layout
from s2txai.study.config import read_config
from s2txai.study.dry_run import planned_jobs
from s2txai.study.estimate import estimate
from s2txai.study.plan import plan
from tests.workflow.project import Project

pytestmark = pytest.mark.workflow

OPTIONAL = {
    "sensitivity": [{"p": 0.1}, {"n_masks": 64}],
    "gradient": {"methods": ["grad", "input_x_gradient"]},
    "shard_size": 2,
}


@pytest.fixture
def project(tmp_path):
    return Project.new(tmp_path)


def counted(project):
    """Return the jobs of each step; those of other designs are of the step smx."""
    counts = project.counted()
    counts["smx"] += counts.pop("smx_design", 0)
    return counts


@pytest.mark.parametrize("changes", [{}, OPTIONAL], ids=["test.yaml", "with everything optional"])
def test_jobs_are_those_that_snakemake_plans(project, changes):
    if changes:
        (run,) = project.config["runs"]
        run.pop("utterances")
        project.configure(runs=[run], **changes)
    config = read_config(project.folder, [project.folder / project.configfile])
    study = plan(config, project.folder)
    planned = counted(project)
    # What `s2txai estimate` prints.
    of_snakemake = planned_jobs(project.folder, [project.folder / project.configfile])
    assert of_snakemake == Counter(project.counted())
    (run,) = study.runs.values()
    of_study = ("fetch_model", "comparisons", "report", "check_failures")
    assert layout.jobs_of_run(study, run) | dict.fromkeys(of_study, 1) == planned
    assert estimate(study, run, config, None).jobs == sum(
        n for step, n in planned.items() if step not in of_study
    )


def test_a_study_that_snakemake_cannot_plan_has_one_sentence(project):
    (project.folder / "Snakefile").write_text("include: 'nowhere.smk'\n")
    with pytest.raises(UserError, match=r"Snakemake cannot plan this study: .*nowhere"):
        planned_jobs(project.folder, [])
