"""Nouns: English | Czech | model word of the declension | kinds of meaning | forms the model does not foretell.

English gives the plural after a slash where it is irregular; Czech gives the stem of the other cases after a colon.
The order inside a kind is the order of frequency (see ``sampler.ZIPF_EXPONENT``): the last words are rare.
Kinds decide which verbs and prepositions a noun goes with. ``he`` and ``she`` say the English pronoun (else "it");
``job`` is what somebody can become.
``gender_p=f`` marks a noun that is feminine in the plural (dítě, děti).
"""

NOUNS = """
# people
teacher | učitel | muž | person he job | np=-é
man/men | muž | muž | person he
woman/women | žena | žena | person she
boy | chlapec:chlapc | muž | person he
girl | dívka | žena | person she | gp=dívek
friend | přítel | muž | person he | np=přátelé gp=přátel dp=přátelům ap=přátele lp=přátelích ip=přáteli
doctor | lékař | muž | person he job
neighbour | soused | pán | person he | np=-é
child/children | dítě | kuře | person | gender_p=f np=děti gp=dětí dp=dětem ap=děti lp=dětech ip=dětmi
student | student | pán | person he
mother | matka | žena | person she | gp=matek
father | otec:otc | muž | person he | np=-ové
sister | sestra | žena | person she | gp=sester
brother | bratr | pán | person he
worker | dělník | pán | person he job
king | král | muž | person he job | np=-ové
queen | královna | žena | person she job | gp=královen
soldier | voják | pán | person he job
writer | spisovatel | muž | person he job | np=-é
actress | herečka | žena | person she job | gp=hereček
farmer | sedlák | pán | person he job
tourist | turista | předseda | person he | np=-é
daughter | dcera | žena | person she | ds=dceři ls=dceři
son | syn | pán | person he | np=-ové
driver | řidič | muž | person he job
judge | soudce | soudce | person he job
grandmother | babička | žena | person she | gp=babiček
grandfather | dědeček:dědečk | pán | person he | np=-ové
waitress | servírka | žena | person she job | gp=servírek
policeman/policemen | policista | předseda | person he job | np=-é
engineer | inženýr | pán | person he job
painter | malíř | muž | person he job
singer | zpěvák | pán | person he job
lawyer | právník | pán | person he job
colleague | kolega | předseda | person he | lp=kolezích
guest | host | pán | person he | np=-é
nurse | ošetřovatelka | žena | person she job | gp=ošetřovatelek
baker | pekař | muž | person he job
scientist | vědec:vědc | muž | person he job
princess | princezna | žena | person she job | gp=princezen
prince | princ | muž | person he job | np=-ové
thief/thieves | zloděj | muž | person he job
gardener | zahradník | pán | person he job
hunter | lovec:lovc | muž | person he job
aunt | teta | žena | person she
uncle | strýc | muž | person he | np=-ové
musician | hudebník | pán | person he job
journalist | novinář | muž | person he job
guide | průvodce | soudce | person he job
fisherman/fishermen | rybář | muž | person he job
foreigner | cizinec:cizinc | muž | person he
widow | vdova | žena | person she job
poet | básník | pán | person he job
mayor | starosta | předseda | person he job
dancer | tanečnice | růže | person she job | gp=tanečnic
monk | mnich | pán | person he job
butcher | řezník | pán | person he job
knight | rytíř | muž | person he job
witch | čarodějnice | růže | person she job | gp=čarodějnic
servant | sluha | předseda | person he job | lp=sluzích
blacksmith | kovář | muž | person he job
bride | nevěsta | žena | person she
sailor | námořník | pán | person he job
shoemaker | švec:ševc | muž | person he job
miller | mlynář | muž | person he job
giant | obr | pán | person he
dwarf/dwarves | trpaslík | pán | person he
beggar | žebrák | pán | person he job
seamstress | švadlena | žena | person she job
shepherd | pastýř | muž | person he job

# animals
dog | pes:ps | pán | animal
cat | kočka | žena | animal | gp=koček
horse | kůň:kon | muž | animal | ds=-i ls=-i np=-e gp=-í dp=-ím ip=koňmi
bird | pták | pán | animal
cow | kráva | žena | animal | gp=krav
wolf/wolves | vlk | pán | animal
bear | medvěd | pán | animal
hen | slepice | růže | animal | gp=slepic
puppy | štěně:štěňat | kuře | animal
mouse/mice | myš | kost | animal | dp=-ím lp=-ích
fox | liška | žena | animal | gp=lišek
kitten | kotě:koťat | kuře | animal
lion | lev:lv | pán | animal
pig | prase:prasat | kuře | animal
goat | koza | žena | animal
rabbit | králík | pán | animal
goose/geese | husa | žena | animal
snake | had | pán | animal
monkey | opice | růže | animal | gp=opic
donkey | osel:osl | pán | animal
owl | sova | žena | animal
frog | žába | žena | animal | gp=žab
calf/calves | tele:telat | kuře | animal
elephant | slon | pán | animal
squirrel | veverka | žena | animal | gp=veverek
hedgehog | ježek:ježk | pán | animal
eagle | orel:orl | pán | animal
camel | velbloud | pán | animal
lamb | jehně:jehňat | kuře | animal
crow | vrána | žena | animal | gp=vran
ant | mravenec:mravenc | muž | animal
foal | hříbě:hříbat | kuře | animal

# places where one is "in" (Czech v)
house | dům:dom | hrad | building in | ls=-~e
garden | zahrada | žena | in
school | škola | žena | building in
city | město | město | in
forest | les | hrad | in | gs=-a ls=-e lp=-ích
castle | hrad | hrad | building in | ls=-~e
village | vesnice | růže | in | gp=vesnic
room | pokoj | stroj | room in
kitchen | kuchyně | růže | room in
church | kostel | hrad | building in | gs=-a ls=-e lp=-ích
hospital | nemocnice | růže | building in | gp=nemocnic
shop | obchod | hrad | building in open | ls=-~e
library | knihovna | žena | building in | gp=knihoven
restaurant | restaurace | růže | building in
park | park | hrad | in
theatre | divadlo | město | building in | gp=divadel
hotel | hotel | hrad | building in
museum | muzeum | muzeum | building in
office | kancelář | píseň | room in
cave | jeskyně | růže | in
factory | továrna | žena | building in | gp=továren
valley | údolí | stavení | in
cellar | sklep | hrad | room in | gs=-a ls=-~e
apartment | byt | hrad | room in | ls=-~e
palace | palác | stroj | building in
mill | mlýn | hrad | building in | gs=-a ls=-~e
pharmacy | lékárna | žena | building in | gp=lékáren
cottage | chalupa | žena | building in
prison | vězení | stavení | building in
stable | stáj | píseň | building in
monastery | klášter | hrad | building in | gs=-a ls=-~e
barn | stodola | žena | building in
laboratory | laboratoř | píseň | room in

# places where one is "on" (Czech na)
street | ulice | růže | on | gp=ulic
bridge | most | hrad | building on under | ls=-~e
hill | kopec:kopc | stroj | on
table | stůl:stol | hrad | thing on under | ls=-e
square | náměstí | stavení | on
bench | lavička | žena | thing on under | gp=laviček
island | ostrov | hrad | on | gs=-a ls=-~e
meadow | louka | žena | on | gp=luk
roof | střecha | žena | on part
chair | židle | růže | thing on under
bed | postel | píseň | thing on under
beach | pláž | píseň | on
ship | loď:lod | píseň | vehicle on | gs=-i
carpet | koberec:koberc | stroj | thing on under
balcony | balkon | hrad | on | ls=-~e
terrace | terasa | žena | on
shelf/shelves | police | růže | thing on under | gp=polic
platform | nástupiště | moře | on | gp=nástupišť

# places and events where one is "at" (Czech na)
station | nádraží | stavení | at
market | trh | hrad | at
university | univerzita | žena | at
airport | letiště | moře | at | gp=letišť
wedding | svatba | žena | at | gp=svateb
concert | koncert | hrad | at | ls=-~e
exhibition | výstava | žena | at
party | večírek:večírk | hrad | at
conference | konference | růže | at
lecture | přednáška | žena | at | gp=přednášek
festival | festival | hrad | at
funeral | pohřeb:pohřb | hrad | at

# landmarks: one is near, behind or in front of them
river | řeka | žena | landmark
tree | strom | hrad | landmark under | ls=-~e
lake | jezero | město | landmark
gate | brána | žena | landmark open | gp=bran
statue | socha | žena | landmark
wall | zeď:zd | kost | landmark part
fence | plot | hrad | landmark | ls=-~e
pond | rybník | hrad | landmark | gs=-a
fountain | kašna | žena | landmark | gp=kašen
rock | skála | žena | landmark | gp=skal
oak | dub | hrad | landmark under
monument | pomník | hrad | landmark

# things to read and write
book | kniha | žena | text
letter | dopis | hrad | text open | ls=-e
story | příběh | hrad | text
poem | báseň:básn | píseň | text
song | píseň:písn | píseň | text
fairy tale | pohádka | žena | text | gp=pohádek
report | zpráva | žena | text
novel | román | hrad | text
magazine | časopis | hrad | text | ls=-e
dictionary | slovník | hrad | text
diary | deník | hrad | text

# vehicles
car | auto | město | vehicle machine
bicycle | kolo | město | vehicle machine
train | vlak | hrad | vehicle
bus | autobus | hrad | vehicle machine | ls=-e
boat | člun | hrad | vehicle
wagon | vůz:voz | hrad | vehicle | ls=-e

# things
picture | obraz | hrad | thing | ls=-e
key | klíč | stroj | thing
lamp | lampa | žena | thing machine
box | krabice | růže | thing open | gp=krabic
hat | klobouk | hrad | thing wear
coat | kabát | hrad | thing wear | ls=-~e
bottle | láhev:láhv | píseň | thing open
knife/knives | nůž:nož | stroj | thing
basket | košík | hrad | thing wear
mirror | zrcadlo | město | thing | gp=zrcadel
window | okno | město | thing part open | gp=oken
flower | květina | žena | thing
shoe | bota | žena | thing
cup | šálek:šálk | hrad | thing
suitcase | kufr | hrad | thing open wear
computer | počítač | stroj | thing machine
guitar | kytara | žena | thing wear
umbrella | deštník | hrad | thing wear
ring | prsten | hrad | thing
rose | růže | růže | thing
ball | míč | stroj | thing
shirt | košile | růže | thing | gp=košil
candle | svíčka | žena | thing | gp=svíček
glass | sklenice | růže | thing | gp=sklenic
stone | kámen:kamen | hrad | thing | gs=-e ds=-i ls=-i
doll | panenka | žena | thing | gp=panenek
telephone | telefon | hrad | thing machine
coin | mince | růže | thing
sword | meč | stroj | thing wear
machine | stroj | stroj | thing machine
spoon | lžíce | růže | thing | gp=lžic
treasure | poklad | hrad | thing
pencil | tužka | žena | thing | gp=tužek
blanket | deka | žena | thing
drum | buben:bubn | hrad | thing
scarf/scarves | šála | žena | thing wear
flag | vlajka | žena | thing wear | gp=vlajek
axe | sekera | žena | thing wear
bell | zvon | hrad | thing
hammer | kladivo | město | thing | ls=-u
pot | hrnec:hrnc | stroj | thing
ladder | žebřík | hrad | thing wear
barrel | sud | hrad | thing

# food
apple | jablko | město | food | gp=jablek ls=-u lp=-ách
cake | dort | hrad | food baked
egg | vejce | moře | food | gp=vajec
soup | polévka | žena | food | gp=polévek
potato/potatoes | brambora | žena | food
lunch | oběd | hrad | food | gs=-a ls=-~e
pear | hruška | žena | food | gp=hrušek
sausage | klobása | žena | food
dinner | večeře | růže | food
mushroom | houba | žena | food | gp=hub
pancake | palačinka | žena | food baked | gp=palačinek
nut | ořech | hrad | food
breakfast | snídaně | růže | food
plum | švestka | žena | food | gp=švestek
carrot | mrkev:mrkv | píseň | food
cherry | třešeň:třešn | píseň | food
roll | rohlík | hrad | food baked
lemon | citron | hrad | food
onion | cibule | růže | food
dumpling | knedlík | hrad | food

# thoughts
answer | odpověď:odpověd | kost | idea | dp=-ím lp=-ích ip=odpověďmi
question | otázka | žena | idea | gp=otázek
idea | nápad | hrad | idea
problem | problém | hrad | idea
secret | tajemství | stavení | idea
plan | plán | hrad | idea
mistake | chyba | žena | idea
dream | sen:sn | hrad | idea
decision | rozhodnutí | stavení | idea
rule | pravidlo | město | idea | gp=pravidel
law | zákon | hrad | idea | gs=-a ls=-~e
reason | důvod | hrad | idea
war | válka | žena | idea | gp=válek
danger | nebezpečí | stavení | idea
task | úkol | hrad | idea

# parts and properties: "the price of the house"
price | cena | žena | part
colour | barva | žena | part | gp=barev
history | historie | růže | part
owner | majitel | muž | person he | np=-é
corner | roh | hrad | part
edge | okraj | stroj | part
size | velikost | kost | part
"""
