"""Language codes of any form, and the scripts that write words without spaces.

A code is one or more subtags of ASCII letters and digits, joined by ``-``, ``_`` or ``@``: ``en``, ``pt_BR``,
``zh-Hant``, ``sr@latin``, ``eng_Latn``. The subtags are those of BCP 47: a language of ISO 639, a script of ISO 15924
(four letters), a region of ISO 3166. A code names files (``PREFIX.LANG``, ``dict.LANG.txt``), so it has no dot, slash
or space, and it is never rewritten: ``zh-Hant`` and ``zh_Hant`` are two codes of one language.
"""

import re

from fairseq_compress.errors import ConfigError
from fairseq_compress.patterns import lazy_pattern

CODE = re.compile(r"[A-Za-z0-9]+([-_@][A-Za-z0-9]+)*")
CODE_RULE = "letters and digits, joined by '-', '_' or '@', such as en, pt_BR, zh-Hant or eng_Latn"

# ISO 639-2 and 639-3 -> ISO 639-1: three letters, then two.
_TWO_LETTERS = """
    aaraa abkab afraf akaak albsq amham araar argan armhy asmas avaav aveae aymay azeaz bakba bambm baqeu belbe benbn
    bisbi bodbo bosbs brebr bulbg burmy catca cescs chach chece chizh chucu chvcv corkw cosco crecr cymcy czecs danda
    deude divdv dutnl dzodz ellel engen epoeo estet euseu eweee faofo fasfa fijfj finfi frafr frefr fryfy fulff geoka
    gerde glagd glega glggl glvgv greel grngn gujgu hatht hauha hbssh hebhe herhz hinhi hmoho hrvhr hunhu hyehy iboig
    iceis idoio iiiii ikuiu ileie inaia indid ipkik islis itait javjv jpnja kalkl kankn kasks katka kaukr kazkk khmkm
    kikki kinrw kirky komkv konkg korko kuakj kurku laolo latla lavlv limli linln litlt ltzlb lublu luglg macmk mahmh
    malml maomi marmr mayms mkdmk mlgmg mltmt monmn mrimi msams myamy nauna navnv nblnr ndend ndong nepne nldnl nnonn
    nobnb norno nyany ocioc ojioj orior ormom ossos panpa perfa plipi polpl porpt pusps quequ rohrm ronro rumro runrn
    rusru sagsg sansa sinsi slksk slosk slvsl smese smosm snasn sndsd somso sotst spaes sqisq srdsc srpsr sswss sunsu
    swasw swesv tahty tamta tattt telte tgktg tgltl thath tibbo tirti tonto tsntn tsots tuktk turtr twitw uigug ukruk
    urdur uzbuz venve vievi volvo welcy wlnwa wolwo xhoxh yidyi yoryo zhaza zhozh zulzu
"""
# The member of a macrolanguage that stands for it in FLORES, NLLB and OPUS.
_MEMBERS = """
    alssq arbar ayray azjaz cmnzh ekket fuvff gazom guggn khkmn kmrku knckr kngkg lvslv npine oryor pbtps pesfa pltmg
    quyqu swhsw uznuz yddyi zsmms
"""
_SHORTER = {entry[:3]: entry[3:] for entry in (_TWO_LETTERS + _MEMBERS).split()} | {"iw": "he", "in": "id", "ji": "yi"}

_SCRIPT_NAMES = {"latin": "Latn", "cyrillic": "Cyrl", "arabic": "Arab", "devanagari": "Deva"}  # of POSIX: sr@latin
_CHINESE_REGIONS = {"tw": "Hant", "hk": "Hant", "mo": "Hant", "cn": "Hans", "sg": "Hans"}

# A language is one of these unless the code names another script.
CHINESE_SCRIPTS = frozenset(["Hani", "Hans", "Hant", "Hanb", "Bopo"])
CHINESE_LANGUAGES = frozenset(["zh", "yue", "wuu", "lzh", "nan", "hak", "gan", "hsn", "cdo", "cjy"])
# With spaces between sentences or phrases, though not between words.
_PHRASE_SCRIPTS = frozenset(
    ["Thai", "Laoo", "Tibt", "Mymr", "Khmr", "Tale", "Talu", "Lana", "Tavt", "Java", "Bali", "Ahom"]
)
_PHRASE_LANGUAGES = frozenset(
    ["th", "tts", "nod", "lo", "km", "my", "mnw", "shn", "ksw", "kht", "blk", "bo", "dz", "khb", "tdd", "blt"]
)
UNSPACED_SCRIPTS = CHINESE_SCRIPTS | _PHRASE_SCRIPTS | {"Jpan", "Hrkt", "Hira", "Kana", "Yiii", "Tang", "Nshu", "Kits"}
UNSPACED_LANGUAGES = CHINESE_LANGUAGES | _PHRASE_LANGUAGES | {"ja", "ojp", "ryu", "ii"}

# Characters of these scripts, with their marks and digits.
LOGOGRAPHS = (  # Han, Yi, Tangut, Khitan, Nushu
    "\u3005-\u3007\u3021-\u3029\u3038-\u303c\u3400-\u4dbf\u4e00-\u9fff\ua000-\ua48c\uf900-\ufaff"
    "\U00016fe0-\U00016fe3\U00017000-\U00018d7f\U0001b170-\U0001b2ff\U00020000-\U0003ffff"
)
KANA = (  # Hiragana, Katakana, Bopomofo
    "\u3031-\u3035\u3041-\u309a\u309d-\u309f\u30a1-\u30fa\u30fc-\u312f\u31a0-\u31bf\u31f0-\u31ff"
    "\uff66-\uff9f\U0001aff0-\U0001b16f"
)
ABUGIDAS = (  # Thai, Lao, Tibetan, Myanmar, Khmer, Tai Le, New Tai Lue, Tai Tham, Balinese, Javanese, Tai Viet, Ahom
    "\u0e00-\u0fff\u1000-\u109f\u1780-\u17ff\u1950-\u19ff\u1a20-\u1aaf"
    "\u1b00-\u1b7f\ua980-\ua9ff\uaa60-\uaadf\U00011700-\U0001174f"
)
_UNSPACED = lazy_pattern(f"[{LOGOGRAPHS}{KANA}{ABUGIDAS}]")


def check_language(option: str, code: str) -> str:
    """The code, the value of ``option``, if it is one."""
    if not CODE.fullmatch(code):
        raise ConfigError(f"{option}: must be a language code ({CODE_RULE}), got {code!r}")
    return code


def base_language(code: str) -> str:
    """The language of a code in lower case: its two letters in ISO 639-1 if it has them, else its first subtag.

    ``pt_BR`` -> ``pt``, ``eng_Latn`` -> ``en``, ``zho-Hans`` and ``cmn`` -> ``zh``, ``hsb`` -> ``hsb``.
    """
    first = _subtags(code)[0].lower()
    return _SHORTER.get(first, first)


def script(code: str) -> str | None:
    """The script that a code names, as in ISO 15924, or None.

    ``zh-hant`` and ``zh_TW`` -> ``Hant``, ``sr@latin`` -> ``Latn``, ``ja`` -> None.
    """
    subtags = [subtag.lower() for subtag in _subtags(code)[1:]]
    for subtag in subtags:
        if subtag in _SCRIPT_NAMES:
            return _SCRIPT_NAMES[subtag]
        if len(subtag) == 4 and subtag.isalpha():
            return subtag.title()
    if base_language(code) == "zh":
        return next((_CHINESE_REGIONS[subtag] for subtag in subtags if subtag in _CHINESE_REGIONS), None)
    return None


def is_unspaced(code: str) -> bool:
    """Whether a language puts no spaces between words. A script in the code decides: ``zh_Latn`` -> False."""
    named = script(code)
    return base_language(code) in UNSPACED_LANGUAGES if named is None else named in UNSPACED_SCRIPTS


def is_chinese(code: str) -> bool:
    """Whether a code is of Chinese, in any of its languages and Chinese script."""
    named = script(code)
    return base_language(code) in CHINESE_LANGUAGES if named is None else named in CHINESE_SCRIPTS


def has_sentence_spaces(code: str) -> bool:
    """Whether there are spaces between sentences: everywhere but in Chinese, Japanese and Yi."""
    named = script(code)
    return not is_unspaced(code) or (
        base_language(code) in _PHRASE_LANGUAGES if named is None else named in _PHRASE_SCRIPTS
    )


def unspaced_share(text: str) -> float:
    """The share of letters and digits that are of scripts without spaces between words; 0 if the text has none."""
    characters = sum(map(str.isalnum, text))
    return sum(map(str.isalnum, _UNSPACED.findall(text))) / characters if characters else 0.0


def _subtags(code: str) -> list[str]:
    return re.split("[-_@]", code)
