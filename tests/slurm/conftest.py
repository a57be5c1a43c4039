import shutil

import pytest

from tests.slurm.cluster import Study, run, said
from tests.slurm.local_slurm import LocalSlurm, running_program, why_not
from tests.weights import model_directory
from tests.workflow.project import Project


@pytest.fixture(scope="session")
def slurm():
    """A running SLURM."""
    pytest.importorskip(
        "snakemake_executor_plugin_slurm",
        reason="the plugin is missing: make test-slurm",
    )
    if reason := why_not():
        pytest.skip(f"no SLURM of its own can be started here: {reason}")
    with LocalSlurm() as started:
        pids = started.daemons()
        assert len(pids) == 4
        yield started
    assert not [pid for pid in pids if running_program(pid)]
    assert not started.root.exists()


@pytest.fixture(scope="session")
def submitted(slurm, tmp_path_factory):
    """The study after the one whole run that all tests share. Do not change it: copy it."""
    project = Project.new(tmp_path_factory.mktemp("submitted"))
    models = project.folder / "resources" / "models"
    shutil.copytree(model_directory("whisper-tiny.en"), models / "whisper-tiny.en")
    project.configure(
        smx={"n_masks": 16},
        smh={"n_masks": 32},
        decode={"beam": 1},
        deletion={"step": 50},
        aggregate={"poolings": ["avg2d"]},
    )
    # Too little for the first attempt. As a user would say it: for one rule, in the profile.
    project.edit(
        "profiles/slurm/config.yaml",
        "  attention: *gpu\n",
        "  attention: {slurm_partition: gpu, mem_mb: 4000 if attempt > 1 else 300}\n",
    )
    study = Study(project)
    study.folder.mkdir()
    assert run(study) == 0, said(study) + slurm.logs()
    return study


@pytest.fixture
def study(submitted, tmp_path):
    """A copy of the finished study, for one test to change."""
    return Study(submitted.project.copy(tmp_path))
