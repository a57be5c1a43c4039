"""Sentences in many languages, invented for the tests: words, and another word for the last one.

Where no spaces are written, a "word" is a part of the sentence and the other one differs from the
last one in one character.
"""

SENTENCES = {
    "en": ("the children are playing outside", "inside"),
    "it": ("la bambina è già qui", "qua"),
    "es": ("el niño comió una manzana", "naranja"),
    "fr": ("la forêt était très calme", "claire"),
    "de": ("die Straße führt übers Feld", "Moor"),
    "pt": ("a canção não é minha", "tua"),
    "nl": ("de kinderen spelen geïnteresseerd buiten", "binnen"),
    "pl": ("żółta łódź płynie po rzece", "morzu"),
    "ru": ("чёрный чайник стоит на столе", "полу"),
    "uk": ("її сім'я їсть свіжий хліб", "сир"),
    "el": ("το σπίτι μας είναι μικρό", "μεγάλο"),
    "tr": ("ışık İzmir şehrinde çok parlaktı", "sönüktü"),
    "ar": ("كَتَبَ الوَلَدُ رِسَالَةً قَصِيرَةً", "طَوِيلَةً"),
    "he": ("הַיֶּלֶד אָכַל תַּפּוּחַ יָרֹק", "אָדֹם"),
    "fa": ("بچه‌ها در حیاط می‌دوند", "می‌خندند"),
    "hi": ("मेरी छोटी किताब नीली है", "थी"),
    "bn": ("আমার ছোট বইটি খুব ভালো", "ভারী"),
    "ta": ("என் சிறிய புத்தகம் இங்கே", "அங்கே"),
    "te": ("నా చిన్న పుస్తకం ఇక్కడ", "అక్కడ"),
    "th": ("น้ำ เย็น มาก วัน นี้", "นั้"),
    "lo": ("ຂ້ອຍ ດື່ມ ນ້ຳ ເຢັນ", "ເຢົນ"),
    "my": ("ကျွန်တော် ရေ သောက် တယ်", "တပ်"),
    "km": ("ខ្ញុំ ផឹក ទឹក ត្រជាក់", "ត្រជាត់"),
    "zh": ("今天 下午 我们 去 公园", "公司"),
    "yue": ("佢哋 今日 去 咗 街市", "街口"),
    "ja": ("明日 は 図書館 に 行く", "行き"),
    "ko": ("우리는 내일 도서관에 갑니다", "옵니다"),
    "vi": ("những đứa trẻ đang chơi ngoài vườn", "đường"),
    "da": ("børnene leger på den grønne mark", "bakke"),
    "sv": ("barnen åker båt över sjön", "ån"),
    "fi": ("lapset syövät jäätelöä pihalla", "sisällä"),
    "hu": ("a gyerekek őszi gyümölcsöt esznek", "szednek"),
    "cs": ("žluťoučký kůň běží přes pole", "louku"),
    "eo": ("ĉiuj ĝojaj infanoj ludas ĵaŭde", "hodiaŭ"),
}  # fmt: skip
WITHOUT_SPACES = ("th", "lo", "my", "km", "zh", "yue", "ja")


def written(language, words):
    """Put words together as the language writes them."""
    return ("" if language in WITHOUT_SPACES else " ").join(words)


def changed(language):
    """Return the words of a sentence, and the same with another last one."""
    sentence, other = SENTENCES[language]
    words = sentence.split(" ")
    return words, [*words[:-1], other]
