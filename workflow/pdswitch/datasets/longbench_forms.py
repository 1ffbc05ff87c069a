"""What LongBench's tasks ask, one form a task.

Each has the parts of the benchmark's own prompt in the same order (task, context, input, the cue
that the answer follows), in words of this project. To run with the benchmark's words, give its
`dataset2prompt.json` as `prompt_forms`.
"""

_PASSAGES = (
    "Use the passages below to answer a question. Reply with the answer alone.\n\n"
    "Passages:\n{context}\n\n"
    "Reply to the question with the answer alone.\n\n"
    "Question: {input}\nAnswer:"
)
_MEETING = (
    "Here is the transcript of a meeting and a question about it. Answer in one or more "
    "sentences.\n\nTranscript:\n{context}\n\nQuestion: {input}\nAnswer:"
)
_CODE = "Write the next line of the code below.\n{context}{input}Next line of code:\n"

FORMS = {
    # One document, one question.
    "narrativeqa": (
        "Here is a story, from a book or a film script, and a question about it. Answer in as few "
        "words as possible and explain nothing.\n\n"
        "Story: {context}\n\n"
        "Answer from the story in as few words as possible and explain nothing.\n\n"
        "Question: {input}\n\nAnswer:"
    ),
    "qasper": (
        "Here is a scientific article and a question about it. Answer in a phrase or a sentence; "
        'say "yes", "no" or "unanswerable" where that is the answer. Explain nothing.\n\n'
        "Article: {context}\n\n"
        "Answer from the article in a phrase or a sentence, or with "
        '"yes", "no" or "unanswerable".\n\n'
        "Question: {input}\n\nAnswer:"
    ),
    "multifieldqa_en": (
        "Read the text and answer briefly.\n\n{context}\n\n"
        "Answer the question from the text, with the answer alone.\n\n"
        "Question: {input}\nAnswer:"
    ),
    "multifieldqa_zh": (
        "请阅读下面的文字，并简短作答。\n\n{context}\n\n请根据上文回答问题，只写答案。\n\n问题：{input}\n回答："
    ),
    # Several documents, one question.
    "hotpotqa": _PASSAGES,
    "2wikimqa": _PASSAGES,
    "musique": _PASSAGES,
    "dureader": (
        "请根据下面的文章回答问题。\n\n文章：{context}\n\n请根据上面的文章回答问题。\n\n问题：{input}\n回答："
    ),
    # Summaries.
    "gov_report": (
        "Here is a report by a government agency. Summarise it on one page.\n\n"
        "Report:\n{context}\n\nSummarise the report on one page.\n\nSummary:"
    ),
    "qmsum": _MEETING,
    "multi_news": (
        "Here are several news articles on one event. Summarise them together on one page.\n\n"
        "News:\n{context}\n\nSummarise all the news on one page.\n\nSummary:"
    ),
    "vcsum": "下面是一次会议的记录，请写出会议总结。\n\n会议记录：\n{context}\n\n会议总结：",
    # Examples, then one more.
    "trec": "Say of which type the last question is. Examples come first.\n\n{context}\n{input}",
    "triviaqa": (
        "Answer the question about the passage with the answer alone. Examples come first.\n\n"
        "{context}\n\n{input}"
    ),
    "samsum": (
        "Summarise the dialogue in a few sentences. Examples come first.\n\n{context}\n\n{input}"
    ),
    "lsht": "请判断最后一篇新闻的类别，前面是一些例子。\n\n{context}\n{input}",
    # Made for the benchmark.
    "passage_count": (
        "Some of the paragraphs below are the same. Find out how many different ones there are.\n\n"
        "{context}\n\n"
        "Reply with the number of different paragraphs, as digits.\n\nThe number is: "
    ),
    "passage_retrieval_en": (
        "Below are 30 paragraphs from an encyclopedia and a summary of one of them. Find out which "
        "one was summarised.\n\n{context}\n\nThe summary:\n\n{input}\n\n"
        'Reply with the number of the paragraph, in the form "Paragraph 1".\n\nThe answer is: '
    ),
    "passage_retrieval_zh": (
        "下面是若干段文字和其中一段的摘要，请判断摘要出自哪一段。\n\n{context}\n\n摘要如下：\n\n{input}\n\n"
        "请按“段落1”的格式写出段落编号。\n\n答案是："
    ),
    # Code.
    "lcc": _CODE,
    "repobench-p": _CODE,
}
