# How much of what a speech-to-text model does is explained by its cross-attention?
#
# Six steps, one rule file each; see README.md. Here are only the targets.

from snakemake.utils import min_version

min_version("9.0")


report: "workflow/report/workflow.rst"


# Found wherever Snakemake is started; a path alone would be looked for in the working directory.
configfile: f"{workflow.basedir}/config/config.yaml"


include: "workflow/rules/common.smk"
include: "workflow/rules/fetch.smk"
include: "workflow/rules/decode.smk"
include: "workflow/rules/attention.smk"
include: "workflow/rules/saliency.smk"
include: "workflow/rules/aggregate.smk"
include: "workflow/rules/correlate.smk"
include: "workflow/rules/deletion.smk"
include: "workflow/rules/sensitivity.smk"
include: "workflow/rules/timestamps.smk"
include: "workflow/rules/heads.smk"
include: "workflow/rules/failures.smk"
include: "workflow/rules/report.smk"


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
        get_final_output(),


rule all_decode:
    input:
        tables("decode/scores.csv"),


rule all_attention:
    input:
        shard_directories("attention"),


rule all_saliency:
    input:
        shard_directories("smx"),
        shard_directories("smh"),
        *(shard_directories(method) for method in METHODS),


rule all_aggregate:
    input:
        shard_directories("aggregate"),


rule all_correlate:
    input:
        tables("correlate/summary.csv"),


rule all_deletion:
    input:
        tables("deletion/auc.csv"),


rule all_timestamps:
    input:
        timed_tables("summary.csv"),
