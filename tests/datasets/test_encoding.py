"""Token ids in batches are those of the tokenizer one by one, with one BOS at most."""

import numpy as np
import pytest

from pdswitch.datasets.encoding import Encoder, load_tokenizer
from pdswitch.datasets.sample import DatasetError, Skipped
from tokenizer_fixture import make_tokenizer

PROMPTS = [
    "What is it?",
    "Zwei ü 🌞\n\nmore",
    "def f(x):\n    return x\n",
    " ",
    "<|end|> in a text",
]


@pytest.fixture(scope="module")
def tokenizer():
    return make_tokenizer()


def test_templated_ids_are_transformers_own(tokenizer):
    encoder = Encoder(tokenizer)
    for thinking in (False, True):
        encoder = Encoder(tokenizer, enable_thinking=thinking)
        expected = [
            tokenizer.apply_chat_template(
                [{"role": "user", "content": prompt}],
                add_generation_prompt=True,
                enable_thinking=thinking,
            )["input_ids"]
            for prompt in PROMPTS
        ]
        texts = encoder.texts(PROMPTS)
        assert all(("<think>" in text) is not thinking for text in texts)
        assert encoder.token_ids(texts) == expected
    assert all(ids.count(tokenizer.bos_token_id) == 1 for ids in expected)


def test_raw_text_gets_its_bos_once(tokenizer):
    for encoder in (Encoder(make_tokenizer(None)), Encoder(tokenizer, apply_chat_template=False)):
        assert not encoder.templated
        assert encoder.texts(PROMPTS) == PROMPTS
        bos = tokenizer.bos_token_id
        raw = encoder.token_ids(["What is it?"])
        assert raw == encoder.token_ids(["<s>What is it?"])
        assert raw[0][0] == bos
        assert raw[0].count(bos) == 1
        assert encoder.token_ids(PROMPTS) == [tokenizer.encode(prompt) for prompt in PROMPTS]


def test_answers_are_counted_without_special_tokens(tokenizer):
    expected = [len(tokenizer.encode(text, add_special_tokens=False)) for text in PROMPTS]
    assert Encoder(tokenizer).lengths(PROMPTS) == expected
    assert Encoder(tokenizer).lengths([]) == []


def test_nothing_gives_nothing(tokenizer):
    encoder = Encoder(tokenizer)
    assert encoder.texts([]) == []
    assert encoder.token_ids([]) == []


def test_a_chat_is_taken_as_it_is(tokenizer):
    chat = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Why?"}]
    (text,) = Encoder(tokenizer).texts([chat])
    assert text.startswith("<s><|start|>system\nBe brief.<|end|>\n<|start|>user\nWhy?<|end|>")
    assert Encoder(make_tokenizer(None)).texts([chat, "Why?"]) == [
        Skipped("chat without a chat template"),
        "Why?",
    ]


REFUSALS = [
    "{% if messages[0]['content'] == 'no' %}{{ raise_exception('not so') }}{% endif %}",
    "{% if messages[0]['content'] == 'no' %}{{ messages[0] + 1 }}{% endif %}",
    "{% if messages[0]['content'] == 'no' %}{{ messages[0]['name'][0].x }}{% endif %}",
    "{% if messages[0]['content'] == 'no' %}{% include 'nothing' %}{% endif %}",
    "{% if messages[0]['content'] == 'no' %}{{ 1 // 0 }}{% endif %}",
    "{% if messages[0]['content'] == 'no' %}{{ range(9999999) }}{% endif %}",
    "{% if messages[0]['content'] == 'no' %}{{ messages[0]['content'].index('y') }}{% endif %}",
]


@pytest.mark.parametrize("template", REFUSALS)
def test_a_prompt_is_refused_alone_whatever_the_template_raises(template):
    encoder = Encoder(make_tokenizer(template + "{{ messages[0]['content'] }}"))
    chat = [{"role": "user", "content": "no"}]
    first, text, refused, last = encoder.texts(["one", "no", chat, "two"])
    assert (first, last) == ("one", "two")
    assert text.reason == "text that the model's chat template refuses"
    assert refused.reason == "chat that the model's chat template refuses"
    assert refused.detail
    assert "\n" not in refused.detail


def test_a_template_that_is_no_template_refuses_everything():
    (refused,) = Encoder(make_tokenizer("{% if %}")).texts(["one"])
    assert refused.reason == "text that the model's chat template refuses"


def test_what_a_template_makes_of_a_chat_is_checked():
    template = "{% if messages[0]['role'] != 'system' %}{{ messages[0]['role'] }}{% endif %}"
    chats = [[{"role": role, "content": "x"}] for role in ("user", "us\udc65r", "system")]
    assert Encoder(make_tokenizer(template)).texts(chats) == [
        "user",
        Skipped("text that is not valid Unicode"),
        Skipped("empty text"),
    ]


def test_long_texts_are_known_by_their_beginning(tokenizer):
    encoder = Encoder(tokenizer)
    dense, sparse = "9 8 7 " * 2000, "?" * 10 + " " * 5000
    texts = ["short", dense, sparse]
    assert encoder.surely_longer(texts, 50) == [False, True, True]
    # Long but within the limit: not known by its beginning, and right all the same.
    assert encoder.surely_longer(["9 8 7 " * 3000], 100_000) == [False]
    lengths = encoder.lengths(texts)
    assert all(
        length > 50
        for length, sure in zip(lengths, encoder.surely_longer(texts, 50), strict=True)
        if sure
    )


def test_random_ids_are_ordinary_and_repeatable(tokenizer):
    encoder = Encoder(tokenizer)
    ids = encoder.random_ids(20_000, 3, 1)
    assert ids.dtype == np.int32
    assert not set(ids.tolist()) & set(tokenizer.all_special_ids)
    assert len(set(ids.tolist())) == len(tokenizer) - 3
    assert (ids == encoder.random_ids(20_000, 3, 1)).all()
    assert (ids != encoder.random_ids(20_000, 3, 2)).any()
    assert (ids[:10] == encoder.random_ids(10, 3, 1)).all()
    assert Encoder(tokenizer, vocabulary_size=100).random_ids(5000, 0).max() == 99


def test_the_digest_names_vocabulary_and_template(tokenizer):
    assert Encoder(tokenizer).sha256 == Encoder(make_tokenizer()).sha256
    assert Encoder(tokenizer).sha256 != Encoder(make_tokenizer(None)).sha256


def test_a_missing_tokenizer_is_reported(tmp_path):
    with pytest.raises(DatasetError, match=r"cannot be read.*give a folder with tokenizer.json"):
        load_tokenizer(str(tmp_path))


POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 11\n"


@pytest.mark.parametrize("plain", [True, False])
@pytest.mark.parametrize(
    ("file", "content", "sentence"),
    [
        ("tokenizer.json", '{"version": "9.0", "model": {"type": "New"}}', "update transformers"),
        ("tokenizer.json", "{", "fetch its files again"),
        ("tokenizer.json", "", "fetch its files again"),
        ("tokenizer.json", "\0\x01", "fetch its files again"),
        ("tokenizer.json", "[]", "fetch its files again"),
        ("tokenizer.json", POINTER, r"tokenizer.json is a Git LFS pointer.*run `git lfs pull`"),
        ("tokenizer_config.json", POINTER, r"config.json is a Git LFS pointer"),
        ("tokenizer_config.json", "{", "fetch its files again"),
        ("tokenizer_config.json", "[]", "fetch its files again"),
        ("tokenizer_config.json", '"text"', "fetch its files again"),
    ],
)
def test_a_tokenizer_file_that_cannot_be_parsed_gets_one_sentence(
    tmp_path, tokenizer, plain, file, content, sentence
):
    tokenizer.save_pretrained(tmp_path)
    if not plain:
        config = tmp_path / "tokenizer_config.json"
        config.write_text(config.read_text().replace("TokenizersBackend", "LlamaTokenizerFast"))
    (tmp_path / file).write_text(content)
    with pytest.raises(DatasetError, match=sentence) as caught:
        load_tokenizer(str(tmp_path))
    assert "\n" not in str(caught.value)


def test_a_tokenizer_in_a_folder_with_a_strange_name(tmp_path, tokenizer, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("model[1]", "model{x}", "~model"):
        tokenizer.save_pretrained(tmp_path / name)
        assert Encoder(load_tokenizer(name)).sha256 == Encoder(tokenizer).sha256


def test_a_plain_tokenizer_is_the_one_that_auto_tokenizer_gives(tmp_path, tokenizer):
    from transformers import AutoTokenizer

    tokenizer.save_pretrained(tmp_path)
    loaded, auto = load_tokenizer(str(tmp_path)), AutoTokenizer.from_pretrained(tmp_path)
    assert type(loaded) is type(auto)
    assert Encoder(loaded).sha256 == Encoder(auto).sha256 == Encoder(tokenizer).sha256
    assert loaded.all_special_ids == auto.all_special_ids
