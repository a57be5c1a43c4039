"""Words and characters of every script: through forms, scores and the pairing of words."""

import unicodedata

import numpy as np
import pytest
import regex
from hypothesis import given
from hypothesis import strategies as st

from s2txai.analysis.scoring import comparable, corpus_score, score_names, score_signature
from s2txai.analysis.words import match_words, pair_words
from s2txai.datasets import parse_task
from s2txai.datasets.text_forms import same_forms
from s2txai.errors import UserError
from tests.scripts import SENTENCES, WITHOUT_SPACES, changed, written

LANGUAGES = list(SENTENCES)
NORMALISATIONS = ("none", "whisper")


def score(language, reference, hypothesis, normalisation="none", **options):
    name = score_names(parse_task(f"asr-{language}"))[0]
    return corpus_score(
        name,
        [reference],
        [hypothesis],
        text_normalisation=normalisation,
        language=language,
        **options,
    )


def n_units(language, words):
    if language in WITHOUT_SPACES:
        return len(regex.findall(r"\X", "".join(words)))
    return len(words)


@pytest.mark.parametrize("normalisation", NORMALISATIONS)
@pytest.mark.parametrize("language", LANGUAGES)
def test_equal_texts_score_0_and_one_change_counts_once(language, normalisation):
    words, other = changed(language)
    text = written(language, words)
    assert score(language, text, text, normalisation) == 0
    assert score(language, text, written(language, other), normalisation) == pytest.approx(
        100 / n_units(language, words)
    )


@pytest.mark.parametrize("normalisation", NORMALISATIONS)
@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("form", ["NFC", "NFD", "NFKC", "NFKD"])
def test_forms_of_unicode_are_equal(language, form, normalisation):
    text = written(language, changed(language)[0])
    assert score(language, text, unicodedata.normalize(form, text), normalisation) == 0


@pytest.mark.parametrize("language", LANGUAGES)
def test_case_does_not_count_in_whispers_normalisation(language):
    text = written(language, changed(language)[0])
    upper = text.replace("i", "İ").upper() if language == "tr" else text.upper()
    if language == "de":  # ẞ; Python's upper case writes SS, as Swiss spelling does
        upper = text.replace("ß", "ẞ").upper()
    assert score(language, text, upper, "whisper") == 0


@pytest.mark.parametrize("normalisation", NORMALISATIONS)
@pytest.mark.parametrize(
    ("language", "reference", "hypothesis"),
    [
        ("fr", "l’eau d’aujourd’hui", "l'eau d'aujourd'hui"),
        ("fr", "il dit «\u00a0Bonjour\u00a0» puis", 'il dit "Bonjour" puis'),
        ("fr", "« Oui » dit-elle", '"Oui" dit-elle'),
        ("de", "sagt »Hallo« und „ja“", 'sagt "Hallo" und "ja"'),
        ("uk", "пʼять м’яких м'ячів", "п'ять м'яких м’ячів"),
        ("he", "צה״ל ו־צ׳ק", "צה\"ל ו־צ'ק"),
        ("en", "“rock ʼn’ roll”", "\"rock 'n' roll\""),
        ("en", "the o\ufb03ce e\u0301tude", "the office étude"),
        ("ja", "「ガッツ」とｱｲｽ", "“ガッツ”とアイス"),
        ("ja", "ＡＢＣ１２３を買う", "ABC123を買う"),
        ("ar", "\ufefb شيء", "لا شيء"),
        ("ko", "한국어를 배웁니다", unicodedata.normalize("NFD", "한국어를 배웁니다")),
        ("th", "น้ำตา", "น\u0e49\u0e4d\u0e32ตา"),
        ("km", "ខ្ញុំ\u200bផឹក\u200bទឹក", "ខ្ញុំផឹកទឹក"),
        ("de", "Donau\u00addampf schiff", "Donaudampf schiff"),
        ("de", "Auf\u200clage", "Auflage"),
        ("fa", "کار\u200cها رفته\u200c", "کارها رفته"),
        ("fa", "می\u200c\u200cروم", "می\u200cروم"),
        ("ml", "അവന്\u200d", "അവൻ"),
        ("bn", "উত্\u200dসব", "উৎসব"),
        ("ar", "العـــربية", "العربية"),
        ("yi", "װאָס", "וואָס"),
        ("el", "ἀλλ\u1fbd ἐγώ σ\u1fbf αγαπώ", "ἀλλ’ ἐγώ σ' αγαπώ"),
        ("ja", "か゛ぎ", "がぎ"),
        ("ja", "1〜2", "1～2"),
        ("en", "a well\u2010known non\u2011stop −5", "a well-known non-stop -5"),
        ("he", "בית־ספר", "בית-ספר"),
        ("th", "เเม่", "แม่"),
        ("lo", "ເເມ່", "ແມ່"),
        ("hy", "հայ՚ր և", "հայ'ր եւ"),
        ("km", "ក\u17b5រ", "ករ"),
        ("mn", "са\u180bйн", "сайн"),
        ("fr", "aujourd\u02bdhui", "aujourd'hui"),
        ("en", "❝Hi❞ ʼn rock \u0149 roll", "\"Hi\" 'n rock 'n roll"),
        ("en", "½ cup", "1/2 cup"),
        ("ca", "col\u2027legi paraŀlel", "col·legi paral·lel"),
        ("pl", "''Tak''", "„Tak”"),
    ],
)
def test_what_is_typed_otherwise_is_equal(language, reference, hypothesis, normalisation):
    assert score(language, reference, hypothesis, normalisation) == 0
    assert score(language, hypothesis, reference, normalisation) == 0


@pytest.mark.parametrize(
    ("language", "one", "other"),
    [
        ("hi", "दिन", "दान"),
        ("bn", "কলা", "কলি"),
        ("ta", "பல்", "பால்"),
        ("te", "పాలు", "పూలు"),
        ("ar", "كَتَبَ", "كُتِبَ"),
        ("he", "סֵפֶר", "סָפַר"),
        ("th", "เสือ", "เสื่อ"),
        ("lo", "ປາ", "ປ່າ"),
        ("km", "កា", "កើ"),
        ("my", "စာ", "စား"),
        ("ja", "かき", "かぎ"),
        ("ru", "мой", "мои"),
        ("it", "però", "pero"),
        ("bo", "ཀ", "ཀི"),
        ("ml", "കല", "കാല"),
        ("gu", "કમળ", "કામળ"),
        ("pa", "ਗੱਲ", "ਗਲ"),
        ("si", "ක්\u200dර", "ක්ර"),
        ("fa", "می\u200cروم", "میروم"),
        ("yo", "ọkọ́", "ọkọ̀"),
        ("is", "maður", "madur"),
    ],
)
def test_marks_that_spell_are_kept(language, one, other):
    for normalisation in NORMALISATIONS:
        assert score(language, one, other, normalisation) > 0
    assert match_words([one], [other], language=language) == []
    assert match_words([one], [one], language=language) == [(0, 0)]


@pytest.mark.parametrize(
    ("language", "one", "other"),
    [
        ("en", "we're", "were"),
        ("en", "he’ll", "hell"),
        ("eng", "she'd", "shed"),
        ("fr", "l'est", "lest"),
        ("uk", "об'їзд", "обїзд"),
        ("he", "צה״ל", "צהל"),
        ("ca", "col·legi", "collegi"),
        ("en", "1.5", "15"),
        ("en", "1/2", "12"),
        ("en", "10²", "102"),
        ("de", "3,5²", "3,52"),
        ("en", "2½", "21/2"),
    ],
)
def test_signs_within_words_and_numbers_are_kept(language, one, other):
    for normalisation in NORMALISATIONS:
        assert score(language, one, other, normalisation) > 0
    assert match_words([one], [other], language=language) == []
    assert match_words([one], [f"{one.upper()},"], language=language) == [(0, 0)]


@pytest.mark.parametrize(
    ("short", "long", "text"),
    [("en", "eng", "Mr. Smith's colour"), ("uk", "ukr", "Об'їзд"), ("he", "heb", 'צה"ל')],
)
def test_languages_may_be_named_by_three_letters(short, long, text):
    texts = [
        comparable([text], text_normalisation="whisper", language=code) for code in (short, long)
    ]
    assert texts[0] == texts[1]


@pytest.mark.parametrize("kind", ["NFC", "NFD", "NFKC", "NFKD"])
def test_every_character_is_equal_to_its_forms(kind):
    for number in range(0x20, 0x1FFFF):
        text = f"a{chr(number)}b"
        signs = unicodedata.category(chr(number))[0] in "PSZ"
        if not signs and unicodedata.normalize(kind, text) == text:
            continue
        form = same_forms(text)
        assert same_forms(form) == form, hex(number)
        assert same_forms(unicodedata.normalize(kind, text)) == form, hex(number)


@pytest.mark.parametrize(
    ("language", "with_marks", "without"),
    [
        ("es", "está aquí, señor", "esta aqui, senor"),
        ("el", "καλημέρα", "καλημερα"),
        ("ru", "ещё моё", "еще мое"),
        ("ar", "كَتَبَ", "كتب"),
        ("he", "שָׁלוֹם", "שלום"),
    ],
)
def test_marks_that_may_be_left_out_are_folded_on_demand(language, with_marks, without):
    assert score(language, with_marks, without) > 0
    assert score(language, with_marks, without, diacritics="folded") == 0
    words = with_marks.split(), without.split()
    n = len(words[0])
    assert match_words(*words, language=language, diacritics="folded") == [(k, k) for k in range(n)]


@pytest.mark.parametrize(
    ("language", "one", "other"),
    [("ru", "мой", "мои"), ("hi", "दिन", "दान"), ("ja", "かき", "かぎ"), ("th", "ปา", "ป่า")],
)
def test_folding_takes_off_no_letter(language, one, other):
    assert score(language, one, other, diacritics="folded") > 0


@pytest.mark.parametrize("language", ["hi", "ta", "te", "bn", "he", "ar", "uk", "fa"])
def test_a_word_stays_one_word(language):
    words = changed(language)[0]
    options = {"text_normalisation": "whisper", "language": language}
    (text,) = comparable([" ".join(words)], **options)
    assert len(text.split()) == len(words)


@pytest.mark.parametrize("language", LANGUAGES)
def test_words_of_an_alignment_are_paired(language):
    words, other = changed(language)
    # With marks and capitals as models write them.
    written_words = [f"{words[0].upper() if language != 'tr' else words[0]},", *words[1:]]
    pairs = pair_words(words, written_words, language=language)
    assert pairs == [(n, n, n, n) for n in range(len(words))]
    pairs = pair_words(words, other, language=language)
    assert pairs == [(n, n, n, n) for n in range(len(words) - 1)]


def test_units_that_part_the_text_otherwise_are_paired_where_both_begin_and_end():
    words = ["明日", "は", "図書館", "に", "行く"]
    assert pair_words(words, list("明日は図書館に行く"), language="ja") == [
        (0, 0, 0, 1), (1, 1, 2, 2), (2, 2, 3, 5), (3, 3, 6, 6), (4, 4, 7, 8),
    ]  # fmt: skip
    # One unit holds two words, another goes over the end of one.
    assert pair_words(["一", "二", "三", "四五"], ["一二", "三四", "五"], language="zh") == [
        (0, 1, 0, 0), (2, 3, 1, 2),
    ]  # fmt: skip
    # A wrong character spoils its word alone.
    assert pair_words(words, list("明後は図書館に行く"), language="ja")[0] == (1, 1, 2, 2)


@pytest.mark.parametrize(
    ("language", "words", "units", "pairs"),
    [
        ("th", ["สี"], ["ส", "ี", "่"], []),  # which is another word: four, not colour
        ("my", ["စာ"], ["စ", "ာ", "း"], []),
        ("bo", ["ཀ"], ["ཀ", "ི"], []),
        ("ja", ["か"], ["か", "\u3099"], []),
        ("km", ["រ"], ["ត", "្", "រ"], []),
        ("my", ["သ"], ["ဿ"], []),
        ("ja", ["ガッツ"], ["ｶ", "ﾞ", "ｯ", "ﾂ"], [(0, 0, 0, 3)]),
        ("ja", ["が"], ["か", "\u3099"], [(0, 0, 0, 1)]),
        ("th", ["น้ำ"], ["น", "้", "ำ"], [(0, 0, 0, 2)]),
        ("th", ["ดี", "มาก"], ["ด", "ีม", "าก"], [(0, 1, 0, 2)]),
        ("my", ["ကျွန်", "တော်"], ["ကျွ", "န်", "တော", "်"], [(0, 0, 0, 1), (1, 1, 2, 3)]),
    ],
)
def test_no_word_begins_or_ends_within_a_letter_and_its_marks(language, words, units, pairs):
    assert pair_words(words, units, language=language) == pairs


def test_a_space_or_a_mark_between_units_matters_not():
    pairs = pair_words(["今日", "は"], ["今", "日", "、", " は"], language="ja")
    assert pairs == [(0, 0, 0, 1), (1, 1, 3, 3)]


def test_scores_by_language():
    assert score_names(parse_task("asr-ja")) == ("cer", "cer_max")
    assert score_names(parse_task("asr-cmn")) == ("cer", "cer_max")
    assert score_names(parse_task("asr-ko")) == ("wer", "wer_max")
    assert score_names(parse_task("st-en-ja")) == ("bleu",)


def test_words_are_not_counted_where_none_are_parted():
    with pytest.raises(UserError, match=r"'wer' counts words, which 'ja' does not part .* 'cer'"):
        corpus_score("wer", ["猫"], ["犬"], text_normalisation="none", language="ja")


def test_cer_by_hand():
    # Three of nine characters are wrong; a vowel sign and its letter are one character.
    assert score("ja", "明日は図書館に行く", "明日も図書室に行こ") == pytest.approx(100 / 3)
    assert score("th", "กินข้าว", "กินขาว") == pytest.approx(100 / 5)
    assert score("zh", "你 好", "你好") == 0


def test_bleu_of_a_language_without_spaces_counts_its_characters():
    references, hypotheses = ["今天下午我们去公园"], ["今天下午我们去公司"]
    options = {"text_normalisation": "none"}
    assert 70 < corpus_score("bleu", references, hypotheses, language="zh", **options) < 90
    assert corpus_score("bleu", references, references, language="zh", **options) == pytest.approx(
        100
    )
    # With the tokeniser of English the sentence is one word.
    assert corpus_score("bleu", references, hypotheses, language="en", **options) == 0


def test_signatures_name_unit_and_tokeniser():
    facts = {"text_normalisation": "none"}
    wer = score_signature("wer", language="it", **facts)
    assert "|unit:word|tokeniser:white space|" in wer
    cer = score_signature("cer_max", language="my", **facts)
    assert "|unit:character|tokeniser:grapheme clusters|" in cer
    assert ",tok:zh," in score_signature("bleu", language="zh", **facts)
    assert ",tok:13a," in score_signature("bleu", language="de", **facts)


# One changed unit of a sentence of random words: what it should score.


@given(st.sampled_from(LANGUAGES), st.data())
def test_random_sentences(language, data):
    vocabulary = sorted({*changed(language)[0], *changed(language)[1]})
    words = data.draw(st.lists(st.sampled_from(vocabulary), min_size=1, max_size=8))
    text = written(language, words)
    normalisation = data.draw(st.sampled_from(NORMALISATIONS))
    form = data.draw(st.sampled_from(["NFC", "NFD", "NFKC", "NFKD"]))
    assert score(language, text, unicodedata.normalize(form, text), normalisation) == 0
    place = data.draw(st.integers(0, len(words) - 1))
    left_out = written(language, words[:place] + words[place + 1 :])
    n_missing = n_units(language, words) - n_units(language, words[:place] + words[place + 1 :])
    assert score(language, text, left_out, normalisation) == pytest.approx(
        100 * n_missing / n_units(language, words)
    )
    pairs = np.array(pair_words(words, words, language=language)).reshape(-1, 4)
    assert pairs.tolist() == [[n] * 4 for n in range(len(words))]
