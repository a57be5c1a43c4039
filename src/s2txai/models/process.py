"""Settings that torch and other libraries keep per process, for jobs and the command line.

The package itself changes none of them when it is imported or a model is loaded, so that it can be
used beside other code of a notebook.
"""

import torch


def configure_process(*, precision: str, threads: int, quiet: bool = False) -> None:
    """Give this process to one model.

    Parameters
    ----------
    precision
        As in the configuration: ``tf32`` lets all float32 products on a GPU round to TF32, scores
        of masks included; any other lets none.
    threads
        CPU threads of torch.
    quiet
        Whether transformers reports errors only.
    """
    torch.set_num_threads(threads)
    # Convolutions would round to TF32 unless they are kept from it.
    torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
    torch.backends.cudnn.allow_tf32 = precision == "tf32"
    if quiet:
        # Takes seconds, and only a terminal that people read asks for it.
        import transformers

        transformers.logging.set_verbosity_error()
