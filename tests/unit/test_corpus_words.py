"""Words of text with and without spaces, in one unit."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairseq_compress.corpus.cleaning import CleaningRules, PairCleaner
from fairseq_compress.corpus.words import count_words
from fairseq_compress.languages import unspaced_share

# Universal Declaration of Human Rights, article 1.
ENGLISH = (
    "All human beings are born free and equal in dignity and rights. They are endowed with reason and conscience and "
    "should act towards one another in a spirit of brotherhood."
)
ARTICLES = {
    "zh": "人人生而自由,在尊严和权利上一律平等。他们赋有理性和良心,并应以兄弟关系的精神相对待。",
    "ja": "すべての人間は、生まれながらにして自由であり、かつ、尊厳と権利とについて平等である。人間は、理性と良心とを"
    "授けられており、互いに同胞の精神をもって行動しなければならない。",
    "th": "มนุษย์ทั้งหลายเกิดมามีอิสระและเสมอภาคกันในเกียรติศักดิ์และสิทธิ ต่างมีเหตุผลและมโนธรรม และควรปฏิบัติต่อกันด้วยเจตนารมณ์แห่งภราดรภาพ",
    "lo": "ມະນຸດເກີດມາມີສິດເສລີພາບ ແລະ ສະເໝີໜ້າກັນໃນທາງກຽດຕິສັກ ແລະ ທາງສິດດ້ວຍມະນຸດມີສະຕິສຳປັດຊັນຍະ"
    "(ຮູ້ດີຮູ້ຊົ່ວ)ແລະມີມະໂນທຳຈື່ງຕ້ອງປະພຶດຕົນຕໍ່ກັນໃນທາງພີ່ນ້ອງ.",
    "km": "មនុស្សទាំងអស់ កើតមកមានសេរីភាព និងសមភាព ក្នុងផ្នែកសេចក្ដីថ្លៃថ្នូរនិងសិទ្ធិ។ មនុស្ស "
    "មានវិចារណញ្ញាណនិងសតិសម្បជញ្ញៈជាប់ពីកំណើត ហើយគប្បីប្រព្រឹត្ដចំពោះគ្នាទៅវិញទៅមកក្នុងស្មារតីភាតរភាពជាបងប្អូន។",
    "my": "လူတိုင်းသည် တူညီ လွတ်လပ်သော ဂုဏ်သိက္ခာဖြင့် လည်းကောင်း၊ တူညီလွတ်လပ်သော အခွင့်အရေးများဖြင့် လည်းကောင်း၊ "
    "မွေးဖွားလာသူများ ဖြစ်သည်။ ထိုသူတို့၌ ပိုင်းခြား ဝေဖန်တတ်သော ဉာဏ်နှင့် ကျင့်ဝတ် သိတတ်သော စိတ်တို့ရှိကြ၍ ထိုသူတို့သည် "
    "အချင်းချင်း မေတ္တာထား၍ ဆက်ဆံကျင့်သုံးသင့်၏။",
    "bo": "འགྲོ་བ་མིའི་རིགས་རྒྱུད་ཡོངས་ལ་སྐྱེས་ཙམ་ཉིད་ནས་ཆེ་མཐོངས་དང༌། ཐོབ་ཐངགི་རང་དབང་འདྲ་མཉམ་དུ་ཡོད་ལ། ཁོང་ཚོར་རང་བྱུང་གི་"
    "བློ་རྩལ་དང་བསམ་ཚུལ་བཟང་པོ་འདོན་པའི་འོས་བབས་ཀྱང་ཡོད། དེ་བཞིན་ཕན་ཚུན་གཅིག་གིས་གཅིག་ལ་བུ་སྤུན་གྱི་འདུ་ཤེས་འཛིན་པའི་"
    "བྱ་སྤྱོད་ཀྱང་ལག་ལེན་བསྟར་དགོས་པ་ཡིན༎",
    "ii": "ꊿꂷꃅꄿꐨꐥ，ꌅꅍꀂꏽꐯꒈꃅꐥꌐ。ꊿꊇꉪꍆꌋꆀꁨꉌꑌꐥ，ꄷꀋꁨꂛꊨꅫꃀꃅꐥꄡꑟ。",
}
any_text = st.text(st.characters(exclude_categories=["Cs"]))
han = st.text("今天北京的天气很好我们想出去", min_size=1)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", 0),
        (" ", 0),
        ("The dog runs .", 4),  # a token of punctuation is a word, as it was
        ("Ano, 1 234 Kč!", 4),
        ("대한민국 만세", 2),
        ("今", 1),  # 1 / 1.5 = 0.67
        ("今天", 2),  # 1.33
        ("今天很", 2),  # 2
        ("今天很好。", 3),  # 4 / 1.5 = 2.67; its punctuation is none
        ("今 天 很", 2),  # spaces between change nothing
        ("。", 1),
        ("今天 。", 3),  # 1.33 and a token of punctuation
        ("iPhone今天", 3),  # 1 and 1.33
        ("用 Python 3 编程", 4),  # 2 and 3 / 1.5 = 2
        ("用Python编程", 3),
        ("今天，北京", 3),  # 4 / 1.5; a comma between is no word
        ("カタカナ", 2),  # 4 / 3.5 = 1.14
        ("リンゴを食べる", 3),  # 6 / 3.5 + 1 / 1.5 = 2.38
        ("กิน", 1),  # 2 letters and a mark
        ("ๆ", 1),
        ("\u0e31", 1),  # a mark alone
        ("A 今", 2),  # 1.67
        ("大韓民國은", 4),  # 4 / 1.5 = 2.67 and one
    ],
)
def test_words_by_hand(text: str, words: int) -> None:
    assert count_words(text) == words


@given(any_text)
def test_text_with_spaces_has_the_words_between_them(text: str) -> None:
    if unspaced_share(text) == 0 and not any("\u0e00" <= c <= "\u31ff" or c >= "\ua000" for c in text):
        assert count_words(text) == len(text.split())
    assert (count_words(text) == 0) == (not text.split())


@given(han, st.integers(0, 5))
def test_spaces_between_unspaced_characters_change_nothing(text: str, place: int) -> None:
    assert count_words(f"{text[:place]} {text[place:]}") == count_words(text) == -(-2 * len(text) // 3)


@pytest.mark.parametrize("language", ARTICLES)
def test_a_text_has_as_many_words_in_every_language(language: str) -> None:
    assert count_words(ENGLISH) == 30
    assert 22 <= count_words(ARTICLES[language]) <= 45
    for pair in ((ENGLISH, ARTICLES[language]), (ARTICLES[language], ENGLISH), (ARTICLES[language], ARTICLES["zh"])):
        assert PairCleaner(CleaningRules(max_ratio=1.8)).drop_reason(*pair) is None


def test_limits_and_ratios_hold_for_unspaced_text() -> None:
    rules = CleaningRules(min_words=2, max_words=40)
    assert PairCleaner(rules).drop_reason(ENGLISH, ARTICLES["zh"][:8]) == "ratio"  # half a clause for two sentences
    assert PairCleaner(rules).drop_reason("Yes .", "是") == "too_short"
    assert PairCleaner(rules).drop_reason("Yes .", "今天") is None
    assert PairCleaner(rules).drop_reason(ENGLISH, ARTICLES["zh"] * 2) == "too_long"
    assert PairCleaner(rules).drop_reason(ENGLISH, "。") == "too_short"
