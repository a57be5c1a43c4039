# How much of what a speech-to-text model does is explained by its cross-attention?
#
# Six steps, one rule file each; see README.md. Here are only the targets.

from snakemake.utils import min_version

min_version("9.0")


report: "workflow/report/workflow.rst"


# Found wherever Snakemake is started; a path alone would be looked for in the working directory.
configfile: f"{workflow.basedir}/config/config.yaml"


include: "workflow/rules/common.smk"


for step in layout.STEPS:

    include: f"workflow/rules/{step.name}.smk"


localrules:
    all,
    all_decode,
    all_attention,
    all_saliency,
    all_aggregate,
    all_correlate,
    all_deletion,
    all_timestamps,


rule all:
    default_target: True
    input:
        layout.final_outputs(),


rule all_decode:
    input:
        JOBS.tables("decode/scores.csv"),


rule all_attention:
    input:
        JOBS.all_shards("attention"),


rule all_saliency:
    input:
        JOBS.all_shards("smx", "smh", *STUDY.methods),


rule all_aggregate:
    input:
        JOBS.all_shards("aggregate"),


rule all_correlate:
    input:
        JOBS.tables("correlate/summary.csv"),


rule all_deletion:
    input:
        JOBS.tables("deletion/auc.csv"),


rule all_timestamps:
    input:
        JOBS.timed_tables("summary.csv"),
