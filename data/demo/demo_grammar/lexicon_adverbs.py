"""Adverbs and adverbial phrases: English | Czech. The order inside a table is the order of frequency."""

TIME_PAST = """
yesterday | včera
last week | minulý týden
on Monday | v pondělí
recently | nedávno
last year | loni
on Saturday | v sobotu
in the evening | večer
on Wednesday | ve středu
a year ago | před rokem
on Friday | v pátek
last summer | loni v létě
on Thursday | ve čtvrtek
last month | minulý měsíc
at midnight | o půlnoci
"""
TIME_FUTURE = """
tomorrow | zítra
soon | brzy
next week | příští týden
on Sunday | v neděli
next year | příští rok
on Tuesday | v úterý
next month | příští měsíc
in the morning | ráno
in a week | za týden
next spring | příští jaro
"""
TIME_PRESENT = """
every day | každý den
every morning | každé ráno
every week | každý týden
in winter | v zimě
in summer | v létě
every year | každý rok
at night | v noci
on weekends | o víkendech
"""
# Between subject and verb in both languages, with the present tense.
FREQUENCY = """
often | často
always | vždy
usually | obvykle
sometimes | někdy
rarely | zřídka
"""
# Behind the object in English, before the verb in Czech.
MANNER = """
slowly | pomalu
quickly | rychle
carefully | opatrně
quietly | tiše
patiently | trpělivě
secretly | tajně
bravely | statečně
reluctantly | neochotně
angrily | rozzlobeně
clumsily | nešikovně
"""
# At the beginning of the sentence.
SENTENCE = """
unfortunately | bohužel
fortunately | naštěstí
of course | samozřejmě
naturally | přirozeně
surprisingly | překvapivě
apparently | zřejmě
"""
