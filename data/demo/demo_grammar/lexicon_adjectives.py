"""Adjectives: English | Czech | kinds of nouns they go with | English comparative | Czech comparative.

A hard adjective ends in -ý, a soft one in -í. The kinds are those of ``lexicon_nouns``; ``being`` is a person or an
animal, ``object`` is everything else. The order is the order of frequency.
"""

# Of two adjectives the one of an earlier class stands first, one that is not here before all;
# never two of a class.
CLASSES = (
    "small big tall long deep narrow",
    "new old young ancient modern",
    "black white red green blue yellow golden silver grey",
    "Czech English German French local foreign wooden iron royal main private neighbouring",
)

ADJECTIVES = """
old | starý | being object | older | starší
small | malý | being object | smaller | menší
big | velký | being object | bigger | větší
young | mladý | being | younger | mladší
new | nový | object | newer | novější
beautiful | krásný | being object | more beautiful | krásnější
good | dobrý | being object | better | lepší
tired | unavený | being
black | černý | animal object
happy | šťastný | being | happier | šťastnější
famous | slavný | person object | more famous | slavnější
white | bílý | animal object
poor | chudý | person | poorer | chudší
strong | silný | being | stronger | silnější
expensive | drahý | object | more expensive | dražší
sad | smutný | being | sadder | smutnější
red | červený | object
rich | bohatý | person | richer | bohatší
hungry | hladový | being
heavy | těžký | object | heavier | těžší
clever | chytrý | being | cleverer | chytřejší
modern | moderní | object
strange | podivný | being object
dangerous | nebezpečný | being object | more dangerous | nebezpečnější
interesting | zajímavý | person object | more interesting | zajímavější
cheap | levný | object | cheaper | levnější
green | zelený | object
local | místní | person object
sick | nemocný | being
brave | statečný | being | braver | statečnější
dirty | špinavý | being object | dirtier | špinavější
tall | vysoký | person landmark building | taller | vyšší
wooden | dřevěný | thing building vehicle landmark
foreign | cizí | person text thing
long | dlouhý | text on in idea | longer | delší
important | důležitý | person idea text | more important | důležitější
blue | modrý | object
kind | laskavý | person | kinder | laskavější
quiet | tichý | being in | quieter | tišší
empty | prázdný | building room in thing vehicle
cold | studený | in on food
angry | rozzlobený | being
lazy | líný | being | lazier | línější
Czech | český | person text food
ordinary | obyčejný | object person
wild | divoký | animal
curious | zvědavý | being | more curious | zvědavější
ancient | starobylý | building in on landmark text
yellow | žlutý | object
wise | moudrý | person | wiser | moudřejší
clean | čistý | object | cleaner | čistší
healthy | zdravý | being | healthier | zdravější
golden | zlatý | thing
broken | rozbitý | thing machine
rare | vzácný | animal text thing
polite | zdvořilý | person | more polite | zdvořilejší
main | hlavní | idea part on building
weak | slabý | being | weaker | slabší
private | soukromý | building room vehicle
English | anglický | person text
royal | královský | building in thing
warm | teplý | food wear room
grey | šedý | animal object
diligent | pilný | person | more diligent | pilnější
fresh | čerstvý | food
special | zvláštní | object person
proud | hrdý | being | prouder | hrdější
German | německý | person text vehicle
stupid | hloupý | being idea | more stupid | hloupější
blind | slepý | being
narrow | úzký | on in landmark | narrower | užší
sweet | sladký | food | sweeter | sladší
lonely | osamělý | being
silver | stříbrný | thing
neighbouring | sousední | building in on
deep | hluboký | in landmark idea | deeper | hlubší
shy | plachý | being
French | francouzský | person text food
round | kulatý | thing
iron | železný | thing landmark
dry | suchý | food thing landmark
loud | hlasitý | being machine | louder | hlasitější
sour | kyselý | food
deaf | hluchý | being
"""
