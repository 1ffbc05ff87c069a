"""Small tokenizers made on the fly: with a chat template, without one, with BOS."""

from transformers import PreTrainedTokenizerFast

CORPUS = [
    "What is the capital of Portugal? Lisbon is the capital of Portugal.",
    "Write a function that returns the second largest number of a list.",
    "def average(values):\n    return sum(values) / len(values)\n",
    "The answer is 42, because 6 times 7 is 42. Count: 1, 2, 3.",
]
# As Qwen's and Llama's do: BOS, roles, and a switch for thinking.
TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}<|start|>{{ message['role'] }}\n"
    "{{ message['content'] }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|start|>assistant\n"
    "{% if enable_thinking is defined and enable_thinking is false %}<think></think>{% endif %}"
    "{% endif %}"
)
STRICT_TEMPLATE = "{{ raise_exception('only the system may speak') }}"


def make_tokenizer(template: str | None = TEMPLATE) -> PreTrainedTokenizerFast:
    """Return a byte-level BPE tokenizer that puts BOS before raw text."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=420,
        special_tokens=["<s>", "<|start|>", "<|end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", tokenizer.token_to_id("<s>"))]
    )
    # A file may ask for this; the datasets must not obey.
    tokenizer.enable_truncation(8)
    tokenizer.enable_padding(length=16)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="<|end|>", pad_token="<|end|>"
    )
    fast.chat_template = template
    return fast
