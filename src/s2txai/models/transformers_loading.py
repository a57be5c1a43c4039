"""Loading what ``save_pretrained`` of the transformers library wrote, and refusing the rest."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from reprlib import repr as short
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import AutoModelForSpeechSeq2Seq, AutoTokenizer, GenerationConfig
from transformers.utils import GENERATION_CONFIG_NAME

from s2txai.errors import UserError
from s2txai.models.options import NO_OPTIONS

# `generate` takes from the checkpoint what its call leaves open: these would clash with the call.
_SET_BY_CALL = ("max_length", "max_new_tokens", "num_return_sequences", "return_dict_in_generate")
# Those that come with transformers and torch. Others are packages, or code that is fetched.
_ATTENTION = ("eager", "sdpa")
_INDEX = "model.safetensors.index.json"


def load_network(
    network_class: Any, directory: Path, options: Mapping[str, Any] = NO_OPTIONS
) -> Any:
    """Load what ``save_pretrained`` wrote, in float32.

    Parameters
    ----------
    network_class
        Of the transformers library.
    directory
        Holds the files.
    options
        With ``trust_remote_code`` the code that lies beside the weights is run; the network is then
        of the class that its settings name, which must be used as ``network_class`` is.

    Raises
    ------
    UserError
        If the weights cannot be read, one of them is missing or of the wrong shape, or the folder
        asks for pickles, or for code that is fetched.
    """
    _refuse_requests(directory)
    trusted = bool(options.get("trust_remote_code", False))
    network_class = AutoModelForSpeechSeq2Seq if trusted else network_class
    try:
        if (directory / GENERATION_CONFIG_NAME).is_file():
            # Else one that cannot be read is passed over, and with it the tokens it suppresses.
            GenerationConfig.from_pretrained(directory, local_files_only=True)
        network, report = network_class.from_pretrained(
            directory,
            dtype=torch.float32,
            local_files_only=True,
            output_loading_info=True,
            trust_remote_code=trusted,
            use_safetensors=True,
        )
    # ImportError: weights that were packed by a library which is not here.
    except (
        OSError, RuntimeError, ValueError, TypeError, ImportError, SafetensorError
    ) as error:  # fmt: skip
        raise UserError(
            f"{directory} does not hold the weights of a {network_class.__name__} "
            f"({_first_line(error)}); check the model's entry in config/models.yaml."
        ) from error
    if report["missing_keys"]:
        raise UserError(
            f"{directory} lacks weights of a {network_class.__name__} "
            f"({', '.join(sorted(report['missing_keys'])[:3])}); check the model's entry in "
            "config/models.yaml."
        )
    for name in _SET_BY_CALL:
        setattr(network.generation_config, name, None)
    return network.eval().requires_grad_(False)


def _refuse_requests(directory: Path) -> None:
    """Refuse settings by which a folder would have the library run more than the model.

    An implementation of attention may be the name of a repository, whose code the library would
    fetch and run without asking; an index may name pickles, and files outside the folder.
    """
    for keys, value in _leaves(_json(directory / "config.json")):
        # A part of the model may have its own, as may a table under this key for all parts.
        asks = any(key.endswith("attn_implementation") for key in keys)
        if asks and value not in (None, *_ATTENTION):
            raise UserError(
                f"{directory / 'config.json'}: '{'.'.join(keys)[:100]}' is {short(value)}, code "
                f"from elsewhere; remove the line, or choose one of: {', '.join(_ATTENTION)}."
            )
    named = _json(directory / _INDEX).get("weight_map", {})
    for name in named.values() if isinstance(named, Mapping) else ():
        plain = isinstance(name, str) and Path(name).name == name
        if not plain or not name.endswith(".safetensors"):
            raise UserError(
                f"{directory / _INDEX} names {short(name)}, which is no *.safetensors of this "
                "folder; save the model again with its 'save_pretrained'."
            )


def _json(file: Path) -> dict[str, Any]:
    """Return the table in a file; an empty one if there is none, which others complain about."""
    try:
        content = json.loads(file.read_text("utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def _leaves(table: Mapping[str, Any]) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yield the values of a table and of the tables in it, with the keys that lead to them."""
    pending: list[tuple[tuple[str, ...], Any]] = [((), table)]
    while pending:
        keys, value = pending.pop()
        if isinstance(value, Mapping):
            pending += [((*keys, key), inner) for key, inner in value.items()]
        else:
            yield keys, value


def suppressed_tokens(network: Any) -> dict[str, list[int]]:
    """Return what a checkpoint never predicts, as arguments of :class:`TransformersModel`.

    Padding stands for what follows a finished hypothesis, so none may hold it.
    """
    config, generation = network.config, network.generation_config
    padding = {config.pad_token_id} - {None, config.eos_token_id}
    return {
        "suppress_tokens": sorted(padding.union(generation.suppress_tokens or [])),
        "begin_suppress_tokens": generation.begin_suppress_tokens or [],
    }


def load_part(part_class: Any, directory: Path) -> Any:
    """Load a tokenizer or a feature extractor that lies beside the weights, without its code.

    Raises
    ------
    UserError
        If it is not there.
    """
    try:
        # Said expressly, or the library asks whether to run it where there is a terminal.
        return part_class.from_pretrained(directory, local_files_only=True, trust_remote_code=False)
    except (OSError, RuntimeError, ValueError, TypeError) as error:
        raise UserError(
            f"{directory} holds nothing that {part_class.__name__} can read "
            f"({_first_line(error)}); save it beside the weights with its 'save_pretrained'."
        ) from error


def load_tokenizer(directory: Path) -> Any:
    """Load the tokenizer of the class that the checkpoint names.

    Raises
    ------
    UserError
        If there is none: some classes would make up an empty vocabulary, or convert other files
        with packages that are not here.
    """
    if not (directory / "tokenizer.json").exists():
        raise UserError(
            f"{directory} has no tokenizer.json; load the tokenizer with transformers and save it "
            "beside the weights with its 'save_pretrained'."
        )
    return load_part(AutoTokenizer, directory)


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
