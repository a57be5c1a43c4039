# An exit status that says whether utterances failed.


localrules:
    check_failures,


# Runs when everything else is there. Nothing depends on it.
rule check_failures:
    input:
        layout.PAGE,
        layout.COMPARISONS,
        failures=JOBS.tables("failures.tsv"),
    output:
        touch(layout.COMPLETE),
    log:
        LOGS + "/check_failures.log",
    # What failed is no less failed a minute later.
    retries: 0
    message:
        "Checking that no utterance failed"
    script:
        "../scripts/check_failures.py"
