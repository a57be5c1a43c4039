# How the headline depends on the design of the perturbation; only where the config lists designs.


def design_shards(wildcards):
    """Input function: the shards of each design, under its name."""
    prefix = RUN.format(**wildcards)
    return {
        f"design {design}": [
            f"{prefix}/sensitivity/{design}/{shard}" for shard in run_of(wildcards).shards
        ]
        for design in STUDY.designs
    }


# The same step as smx, with the settings of a design.
rule smx_design:
    input:
        model=MODELS + "/{model}",
        decode=RUN + "/decode/{shard}",
    output:
        directory(RUN + "/sensitivity/{design}/{shard}"),
    log:
        "results/logs/{dataset}/{model}/{task}/sensitivity/{design}/{shard}.log",
    benchmark:
        "results/benchmarks/{dataset}/{model}/{task}/sensitivity/{design}/{shard}.tsv"
    threads: 8
    resources:
        gpu=1,
        mem_mb=by_attempt(8000),
        runtime=240,
    params:
        version=ALGORITHM_VERSIONS["smx"],
        family=model_family,
        precision=config["compute"]["precision"],
        ids=shard_ids,
        seed=config["seed"],
        masks=lambda wildcards: in_order(STUDY.designs[wildcards.design]),
    message:
        "Saliency on the input, {wildcards.design}: {wildcards.dataset}, {wildcards.model}, {wildcards.task}, shard {wildcards.shard}"
    script:
        "../scripts/smx.py"


rule sensitivity:
    input:
        unpack(design_shards),
        aggregate=shards_of("aggregate"),
        smx=shards_of("smx"),
    output:
        report(
            RUN + "/sensitivity/sensitivity.csv",
            caption="../report/sensitivity.rst",
            category="Tables",
            subcategory="{model} on {dataset}, {task}",
            labels={"table": "sensitivity"},
        ),
    log:
        "results/logs/{dataset}/{model}/{task}/sensitivity.log",
    benchmark:
        "results/benchmarks/{dataset}/{model}/{task}/sensitivity.tsv"
    resources:
        mem_mb=by_attempt(4000),
        runtime=by_attempt(30),
    params:
        version=ALGORITHM_VERSIONS["sensitivity"],
        ids=all_ids,
        designs=list(STUDY.designs),
        rows=config["correlate"]["rows"],
        estimator=config["smx"].get("estimator", "mean"),
    message:
        "Comparing designs of the perturbation: {wildcards.dataset}, {wildcards.model}, {wildcards.task}"
    script:
        "../scripts/sensitivity.py"
