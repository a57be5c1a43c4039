# What the rule files share: the checked configuration and the jobs of the study.
#
# `params` hold what changes a number, so that its change runs a job again. What changes only the
# effort (`compute` without its precision, `on_failure`) reaches a script through
# `snakemake.config`, of which a change runs nothing again.

import os
from pathlib import Path

from s2txai.datasets.files import read_yaml
from s2txai.errors import UserError
from s2txai.saliency.methods import METHODS
from s2txai.study import layout
from s2txai.study.jobs import Jobs, failures_sentence, figure_heading, in_order
from s2txai.study.plan import plan

ROOT = Path(workflow.basedir)
# Shorter in messages where Snakemake runs in the project's own folder.
MODELS = os.path.relpath(ROOT / layout.MODELS)
RUN, LOGS, BENCHMARKS = layout.RUN, layout.LOGS, layout.BENCHMARKS

try:
    for path in workflow.configfiles:
        read_yaml(Path(path))  # refuses a key given twice, of which Snakemake keeps the last
    STUDY = plan(config, ROOT)
except UserError as error:
    # Sentences, not a traceback into the parser.
    raise SystemExit(f"{error}")

JOBS = Jobs(STUDY, config, ROOT)

for sentence in (*STUDY.missing, *STUDY.unusable, *STUDY.remarks):
    logger.warning(sentence)


onstart:
    # Known at once, and jobs of hours would come before the one that finds out.
    if STUDY.missing:
        raise SystemExit("\n".join(STUDY.missing))


onsuccess:
    # Targets on the way do not run the last job, `check_failures`.
    if failures := JOBS.failures_so_far():
        raise SystemExit(failures_sentence(failures))


wildcard_constraints:
    dataset="|".join(re.escape(name) for name in STUDY.datasets),
    model="|".join(re.escape(name) for name in STUDY.models),
    task=r"asr-\w+|st-\w+-\w+",
    shard=r"\d{4}",
    design="|".join(re.escape(name) for name in STUDY.designs) or "none",
    method="|".join(re.escape(name) for name in METHODS),
