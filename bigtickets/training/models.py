"""Loading pre-trained weights with a fresh task head."""

import copy
import functools
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
import transformers
from huggingface_hub.errors import StrictDataclassError
from torch import nn
from transformers import AutoConfig, AutoModelForSequenceClassification, PreTrainedModel

from bigtickets.errors import DamagedError, InputError
from bigtickets.study.spec import Attention, ModelSpec

transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()


def load_model(
    model: ModelSpec, num_outputs: int, seed: int, attention: Attention | None = None
) -> PreTrainedModel:
    """The pre-trained encoder in float32 with a task head drawn from `seed`.

    `num_outputs`: classes, or 1 for regression. Everything that is not in the pre-trained
    checkpoint, and the task head even if it is, starts fresh: normal with the config's
    initializer_range, biases 0, as the families' own initialisation does.
    """
    network = copy.deepcopy(_pretrained(model, num_outputs, attention or model.execution.attention))
    fresh = _fresh_parameters(network)
    generator = torch.Generator().manual_seed(seed)
    std = getattr(network.config, "initializer_range", 0.02)
    scales = _norm_scales(network)
    with torch.no_grad():
        for _, parameter in sorted(fresh.items()):
            if parameter.dim() > 1:
                parameter.normal_(0.0, std, generator=generator)
            else:
                parameter.fill_(1.0 if id(parameter) in scales else 0.0)
    return network


def read_config(model: ModelSpec) -> dict[str, Any]:
    """The model's config as a mapping, without loading weights."""
    try:
        return AutoConfig.from_pretrained(
            model.path, revision=model.revision, trust_remote_code=model.trust_remote_code
        ).to_dict()
    except (OSError, ValueError, ImportError, StrictDataclassError) as error:
        raise _load_error(model, error) from error


def randomize(network: PreTrainedModel, seed: int) -> None:
    """Draw all weights anew: the control that keeps a ticket's structure and not its weights."""
    generator = torch.Generator().manual_seed(seed + 1)
    std = getattr(network.config, "initializer_range", 0.02)
    scales = _norm_scales(network)
    with torch.no_grad():
        for _, parameter in sorted(network.named_parameters()):
            if parameter.dim() > 1:
                parameter.normal_(0.0, std, generator=generator)
            else:
                parameter.fill_(1.0 if id(parameter) in scales else 0.0)


# One model at a time: a warm worker runs many trials of it, and a large one fills the memory.
@functools.lru_cache(maxsize=1)
def _pretrained(model: ModelSpec, num_outputs: int, attention: Attention) -> PreTrainedModel:
    try:
        config = AutoConfig.from_pretrained(
            model.path, revision=model.revision, trust_remote_code=model.trust_remote_code
        )
        config.num_labels = num_outputs
        if getattr(config, "use_cache", False):
            config.use_cache = False  # of keys and values that a classifier never reads again
        network, info = AutoModelForSequenceClassification.from_pretrained(
            model.path,
            config=config,
            revision=model.revision,
            trust_remote_code=model.trust_remote_code,
            # Left to transformers, that is SDPA wherever the family has it, and eager elsewhere.
            attn_implementation=None if attention == "sdpa" else attention,
            dtype=torch.float32,
            use_safetensors=True,
            output_loading_info=True,
        )
    except (OSError, ValueError, RuntimeError, ImportError) as error:
        raise _load_error(model, error) from error
    _check_loaded(model, network, info["missing_keys"])
    # Deep copies keep it.
    network.missing_from_checkpoint = set(info["missing_keys"])
    return network


def _check_loaded(model: ModelSpec, network: PreTrainedModel, missing: Iterable[str]) -> None:
    """An encoder that is not in the checkpoint would be a random model without a word."""
    prefix = network.base_model_prefix + "."
    lost = sorted(k for k in missing if k.startswith(prefix) and ".pooler." not in k)
    if lost:
        raise InputError(
            f"model {model.name} ({model.path}): {len(lost)} encoder weights are not in the "
            f"checkpoint, {lost[0]} the first; its names fit no {network.config.model_type} model"
        )


def _load_error(model: ModelSpec, error: Exception) -> Exception:
    first = str(error).strip().splitlines()[0][:300]
    if Path(model.path).is_dir() and type(error).__name__ in ("SafetensorError", "RuntimeError"):
        return DamagedError(f"{model.path}: the weights of model {model.name} do not load: {first}")
    return InputError(f"model {model.name} ({model.path}) does not load: {first}")


def _norm_scales(network: PreTrainedModel) -> set[int]:
    """Ids of the weights of LayerNorms, RMSNorms and the families' own norms."""
    norms = [module for module in network.modules() if type(module).__name__.endswith("Norm")]
    return {id(weight) for norm in norms if (weight := getattr(norm, "weight", None)) is not None}


def _fresh_parameters(network: PreTrainedModel) -> dict[str, nn.Parameter]:
    prefix = network.base_model_prefix + "."
    missing: set[str] = network.missing_from_checkpoint  # type: ignore[assignment]
    return {
        name: parameter
        for name, parameter in network.named_parameters()
        if not name.startswith(prefix) or name in missing
    }
