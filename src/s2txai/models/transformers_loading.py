"""Loading what ``save_pretrained`` of the transformers library wrote, and refusing the rest."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from reprlib import repr as short
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import AutoModelForSpeechSeq2Seq, AutoTokenizer, GenerationConfig
from transformers.utils import GENERATION_CONFIG_NAME

from s2txai.errors import UserError
from s2txai.log import logger
from s2txai.models.generation_settings import missing_suppression, search_settings
from s2txai.models.options import NO_OPTIONS
from s2txai.models.token_names import TokenNames, read_table
from s2txai.models.weight_files import refuse_adapters, stored_types

# Those that come with transformers and torch. Others are packages, or code that is fetched.
_ATTENTION = ("eager", "sdpa")
_INDEX = "model.safetensors.index.json"
# What every extractor has that changes no feature, since utterances go in one by one.
_INERT = (
    "feature_extractor_type",
    "processor_class",
    "padding_side",
    "return_attention_mask",
    "transformers_version",
    "_processor_class",
    "auto_map",
)


def load_network(
    network_class: Any,
    directory: Path,
    options: Mapping[str, Any] = NO_OPTIONS,
    *,
    other_parts: Sequence[str] = (),
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
    other_parts
        What the names of weights begin with that a checkpoint may hold for other uses.

    Raises
    ------
    UserError
        If the weights cannot be read, one of them is missing, left over or of the wrong shape, or
        the folder holds an adapter, or asks for pickles, or for code that is fetched.
    """
    refuse_adapters(directory)
    _refuse_requests(directory)
    _check_files(directory)
    trusted = bool(options.get("trust_remote_code", False))
    network_class = AutoModelForSpeechSeq2Seq if trusted else network_class
    _check_generation_config(directory)
    try:
        network, report = network_class.from_pretrained(
            directory,
            dtype=torch.float32,
            local_files_only=True,
            output_loading_info=True,
            trust_remote_code=trusted,
            use_safetensors=True,
            ignore_mismatched_sizes=True,  # which are refused below, by name
        )
    # ImportError: weights that were packed by a library which is not here.
    except (
        OSError, RuntimeError, ValueError, TypeError, ImportError, SafetensorError
    ) as error:  # fmt: skip
        raise UserError(
            f"{directory} does not hold the weights of a {network_class.__name__} "
            f"({_first_line(error)}); use the folder of a whole checkpoint of this kind."
        ) from error
    if report["mismatched_keys"]:
        name, stored, expected = sorted(report["mismatched_keys"])[0]
        raise UserError(
            f"{directory} holds weights of other shapes than its config.json says ({name}: "
            f"{tuple(stored)} for {tuple(expected)}); save config.json and weights of one "
            "checkpoint together."
        )
    if report["missing_keys"]:
        raise UserError(
            f"{directory} lacks weights of a {network_class.__name__} "
            f"({', '.join(sorted(report['missing_keys'])[:3])}); use the folder of a whole "
            "checkpoint of this kind."
        )
    left_over = [
        name for name in report["unexpected_keys"] if not name.startswith(tuple(other_parts))
    ]
    if left_over:
        raise UserError(
            f"{directory} holds weights that its config.json has no place for "
            f"({', '.join(sorted(left_over)[:3])}); save config.json and weights of one checkpoint "
            "together."
        )
    name = not_finite(network)
    if name is not None:
        raise UserError(
            f"{directory} holds weights that are no finite numbers ('{name}'); take another "
            "checkpoint, since this one is damaged or its training failed."
        )
    return network.eval().requires_grad_(False)


def not_finite(network: torch.nn.Module) -> str | None:
    """Return the name of the first weights that are not all finite; None if all are."""
    return next(
        (
            name
            for name, values in network.named_parameters()
            if not bool(torch.isfinite(values).all())
        ),
        None,
    )


def _check_generation_config(directory: Path) -> None:
    """Refuse settings of decoding that the library would pass over, what they suppress included."""
    file = directory / GENERATION_CONFIG_NAME
    try:
        GenerationConfig.from_dict(read_table(file))
    except (ValueError, TypeError, AttributeError) as error:
        raise UserError(
            f"{file} holds settings that cannot be used ({_first_line(error)}); correct it, or "
            "take it from the checkpoint this one was made of."
        ) from error


def _check_files(directory: Path) -> None:
    """Refuse weights that are missing, integers, or there twice.

    The library would take integers for the numbers that they were scaled from, and settings of its
    own where there are none.
    """
    if not (directory / "config.json").is_file():
        raise UserError(
            f"{directory} has no config.json, which says what the weights are; save it beside them."
        )
    if not any(directory.glob("*.safetensors")):
        raise UserError(
            f"{directory} holds no weights (*.safetensors); load the checkpoint with transformers "
            "and save it with 'save_pretrained'."
        )
    whole = directory / "model.safetensors"
    shards = _json(directory / _INDEX).get("weight_map", {})
    others = sorted({*(shards.values() if isinstance(shards, Mapping) else ())} - {whole.name})
    if others and whole.is_file():
        raise UserError(
            f"{directory} holds {whole.name} and, by {_INDEX}, {others[0]} as well; remove the "
            "weights that are not those of the model."
        )
    for name in others or [whole.name]:
        for tensor, kind in stored_types(directory / name).items():
            if kind[0] in "IU" and tensor.endswith(("weight", "bias")):
                raise UserError(
                    f"{directory / name} holds integers ({kind}) under '{tensor}', whose scale is "
                    "not known; save the model as it was before it was quantised."
                )


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


def generation_settings(directory: Path, network: Any) -> dict[str, Any]:
    """Return all that a checkpoint says on decoding, by name; None for what it does not say.

    What ``generation_config.json`` says, or ``config.json`` where there is no such file.
    """
    # The library drops some of what the file says and it does not know.
    return {
        **network.generation_config.to_dict(),
        **read_table(directory / GENERATION_CONFIG_NAME),
    }


def searched(directory: Path, config: Any, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is honoured of a checkpoint's settings, as arguments of a TransformersModel.

    Padding stands for what follows a finished hypothesis, so none may hold it.

    Raises
    ------
    UserError
        See :func:`s2txai.models.generation_settings.search_settings`.
    """
    honoured = search_settings(
        settings, n_tokens=config.vocab_size, eos=config.eos_token_id, where=str(directory)
    )
    for name in missing_suppression(settings):
        logger.warning(
            "The settings of %s have no '%s', so that nothing is suppressed by it; if the "
            "checkpoint it was made of has such a list, take it from there.",
            directory, name,
        )  # fmt: skip
    padding = {config.pad_token_id} - {None, config.eos_token_id}
    return {
        "suppress_tokens": sorted(padding.union(honoured.pop("suppress_tokens", []))),
        "begin_suppress_tokens": honoured.pop("begin_suppress_tokens", []),
        "penalties": honoured,
    }


def check_settings(
    directory: Path, names: TokenNames, config: Any, settings: Mapping[str, Any]
) -> None:
    """Refuse ids in the settings of a checkpoint that are not those of its tokenizer.

    Raises
    ------
    UserError
        If the end of a sentence differs between network and decoding, or an id that stands for no
        text is no special token.
    """
    eos = settings.get("eos_token_id")
    if eos is not None and eos not in (config.eos_token_id, [config.eos_token_id]):
        raise UserError(
            f"{directory}: generation_config.json ends a sentence with {str(eos)[:40]}, but "
            f"config.json with {config.eos_token_id}; take both from one checkpoint."
        )
    for name in ("bos_token_id", "pad_token_id", "decoder_start_token_id"):
        names.check_silent(directory, {name: getattr(config, name, None)})
        names.check_silent(directory, {name: settings.get(name)})


def check_checkpoint(directory: Path, network: Any, tokenizer: Any) -> TokenNames:
    """Compare a network with the tokenizer beside it.

    Returns
    -------
    TokenNames
        Of the tokenizer.

    Raises
    ------
    UserError
        If they have not the same tokens, end a sentence differently, or the settings name a token
        that is text.
    """
    ids: dict[str, int] = tokenizer.get_vocab()
    added = tokenizer.added_tokens_decoder
    marked = {token for token, entry in added.items() if entry.special}
    names = TokenNames.of(ids, marked.union(tokenizer.all_special_ids))
    names.check_rows(directory, network.get_decoder().embed_tokens.num_embeddings)
    config = network.config
    if tokenizer.eos_token_id != config.eos_token_id:
        raise UserError(
            f"{directory}: the tokenizer ends a sentence with {tokenizer.eos_token_id} "
            f"({tokenizer.eos_token}), but config.json says that 'eos_token_id' is "
            f"{config.eos_token_id}; save tokenizer and network of one checkpoint together."
        )
    check_settings(directory, names, config, generation_settings(directory, network))
    return names


def extractor_settings(directory: Path) -> dict[str, Any]:
    """Return the settings of the features beside a checkpoint; none where there are none.

    Raises
    ------
    UserError
        If a file cannot be read.
    """
    settings = read_table(directory / "preprocessor_config.json")
    if not settings:
        inner = read_table(directory / "processor_config.json").get("feature_extractor") or {}
        settings = dict(inner) if isinstance(inner, Mapping) else {}
    return settings


def load_extractor(extractor_class: Any, directory: Path, **network_bins: int) -> Any:
    """Load the extractor of features that lies beside the weights.

    Parameters
    ----------
    extractor_class
        Of the transformers library.
    directory
        Holds the files.
    network_bins
        From the name of a setting to what the network was made for.

    Raises
    ------
    UserError
        If it is not there, has a setting that its class does not know, or makes other features than
        the network was made for.
    """
    extractor = load_part(extractor_class, directory)
    valid = extractor_class().to_dict()
    for name, value in extractor_settings(directory).items():
        if name not in valid:
            refuse_extraction(directory, name, value)
    if getattr(extractor, "win_length", 0) > getattr(extractor, "n_fft", 0):
        raise UserError(
            f"{directory}: the settings of the features say that 'win_length' is "
            f"{extractor.win_length}, more than 'n_fft' ({extractor.n_fft}); take "
            "preprocessor_config.json from the checkpoint this one was made of."
        )
    for name, bins in network_bins.items():
        if getattr(extractor, name) != bins:
            raise UserError(
                f"{directory}: the settings of the features say that '{name}' is "
                f"{getattr(extractor, name)}, but the network was made for {bins}; take "
                "preprocessor_config.json from the checkpoint this one was made of."
            )
    extractor.return_attention_mask, extractor.padding_side = True, "right"
    return extractor


def refuse_extraction(directory: Path, name: str, value: Any) -> None:
    """Refuse a setting of the features that no code here applies.

    Raises
    ------
    UserError
        Unless it changes nothing.
    """
    if name in _INERT or value is None or value is False:
        return
    raise UserError(
        f"{directory}: the settings of the features hold '{name}' ({str(value)[:60]}), which this "
        "program does not apply; remove it from preprocessor_config.json, if the model was trained "
        "without it."
    )


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
