# ruff: noqa: E501 (a verb stays on one line)
"""Verbs, modals and verbs with a clause.

VERBS: English | subjects | object | simple past | past progressive | present | future | infinitive
  English is base form, past and past participle (the last two only when irregular) and the preposition it needs.
  Object is the Czech case, with the preposition before it where there is one, then the kinds of nouns. ``-`` is an
  intransitive verb, ``in`` one that needs a place, ``to`` one with a goal ("to the forest"), ``give`` one with a recipient, ``be`` a predicate noun.
  Simple past is the perfective l-participle (masculine), past progressive the imperfective one or ``-`` for a state.
  Present is third person singular and plural; future likewise, or ``bude`` for bude with the infinitive.
  A verb with ``se`` or ``si`` has it in the infinitive.
The order is the order of frequency.
"""

VERBS = """
see saw seen | person animal | acc person animal building vehicle thing landmark | viděl | - | vidí vidí | uvidí uvidí | vidět
buy bought bought | person | acc thing food vehicle text building animal | koupil | kupoval | kupuje kupují | koupí koupí | koupit
find found found | person animal | acc thing food animal text | našel:našl | - | nachází nacházejí | najde najdou | najít
sleep slept slept | person animal | - | spal | - | spí spí | bude | spát
read read read | person | acc text | přečetl | četl | čte čtou | přečte přečtou | přečíst
help | person | dat person animal | pomohl | pomáhal | pomáhá pomáhají | pomůže pomohou | pomoci
know knew known | person | acc person building idea text part | znal | - | zná znají | bude | znát
look at | person animal | na acc person animal landmark building thing | podíval | díval | dívá dívají | podívá podívají | podívat se
work | person | - | pracoval | - | pracuje pracují | bude | pracovat
write wrote written | person | acc text | napsal | psal | píše píšou | napíše napíšou | napsat
give gave given | person | give thing food text animal | dal | dával | dává dávají | dá dají | dát
meet met met | person animal | acc person | potkal | - | potkává potkávají | potká potkají | potkat
come came come | person animal | to | přišel:přišl | přicházel | přichází přicházejí | přijde přijdou | přijít
eat ate eaten | person animal | acc food | snědl | jedl | jí jedí | sní snědí | sníst
sell sold sold | person | acc thing vehicle food building animal | prodal | prodával | prodává prodávají | prodá prodají | prodat
wait for | person animal | na acc person animal vehicle idea | počkal | čekal | čeká čekají | počká počkají | počkat
love | person animal | acc person animal text | miloval | - | miluje milují | bude | milovat
fear | person animal | gen person animal idea | bál | - | bojí bojí | bude | bát se
talk about | person | o loc person animal text idea building | promluvil | mluvil | mluví mluví | promluví promluví | promluvit
lose lost lost | person | acc thing text | ztratil | ztrácel | ztrácí ztrácejí | ztratí ztratí | ztratit
build built built | person | acc building | postavil | stavěl | staví stavějí | postaví postaví | postavit
show showed shown | person | give thing text building | ukázal | ukazoval | ukazuje ukazují | ukáže ukážou | ukázat
sit sat sat | person animal | - | seděl | - | sedí sedí | bude | sedět
visit | person | acc person building | navštívil | navštěvoval | navštěvuje navštěvují | navštíví navštíví | navštívit
bring brought brought | person | give thing food text | přinesl | přinášel | přináší přinášejí | přinese přinesou | přinést
steal stole stolen | person animal | acc thing food vehicle | ukradl | kradl | krade kradou | ukradne ukradnou | ukrást
understand understood understood | person | dat person idea text | rozuměl | - | rozumí rozumějí | bude | rozumět
open | person | acc open | otevřel | otevíral | otevírá otevírají | otevře otevřou | otevřít
repair | person | acc machine vehicle building | opravil | opravoval | opravuje opravují | opraví opraví | opravit
play with | person animal | s ins person animal | hrál | - | hraje hrají | bude | hrát si
leave left left | person animal | - | odešel:odešl | odcházel | odchází odcházejí | odejde odejdou | odejít
follow | person animal | acc person animal vehicle | sledoval | - | sleduje sledují | bude | sledovat
catch caught caught | person animal | acc animal | chytil | chytal | chytá chytají | chytí chytí | chytit
thank | person | dat person | poděkoval | děkoval | děkuje děkují | poděkuje poděkují | poděkovat
hide hid hidden | person | acc thing text food | schoval | schovával | schovává schovávají | schová schovají | schovat
live | person | in | bydlel | - | bydlí bydlí | bude | bydlet
return | person animal | to | vrátil | vracel | vrací vracejí | vrátí vrátí | vrátit se
paint | person | acc person animal building landmark | namaloval | maloval | maluje malují | namaluje namalují | namalovat
ask about | person | na acc person idea text part | zeptal | ptal | ptá ptají | zeptá zeptají | zeptat se
need | person | acc person thing idea text | potřeboval | - | potřebuje potřebují | bude | potřebovat
send sent sent | person | give text thing food | poslal | posílal | posílá posílají | pošle pošlou | poslat
describe | person | acc person building idea landmark part | popsal | popisoval | popisuje popisují | popíše popíšou | popsat
prepare | person | acc food idea | připravil | připravoval | připravuje připravují | připraví připraví | připravit
fall_asleep fell_asleep fallen_asleep | person animal | - | usnul | usínal | usíná usínají | usne usnou | usnout
feed fed fed | person | acc animal | nakrmil | krmil | krmí krmí | nakrmí nakrmí | nakrmit
laugh at | person | dat person animal idea | zasmál | smál | směje smějí | zasměje zasmějí | zasmát se
become became become | person | be person | stal | - | stává stávají | stane stanou | stát se
trust | person animal | dat person | věřil | - | věří věří | bude | věřit
wash | person | acc vehicle animal | umyl | myl | myje myjí | umyje umyjí | umýt
smile | person | - | usmál | usmíval | usmívá usmívají | usměje usmějí | usmát se
draw drew drawn | person | acc person animal landmark | nakreslil | kreslil | kreslí kreslí | nakreslí nakreslí | nakreslit
think thought thought about | person | o loc person idea text | přemýšlel | - | přemýšlí přemýšlejí | bude | přemýšlet
hear heard heard | person animal | acc person animal text | slyšel | - | slyší slyší | uslyší uslyší | slyšet
save | person animal | acc person animal | zachránil | zachraňoval | zachraňuje zachraňují | zachrání zachrání | zachránit
explain | person | give idea | vysvětlil | vysvětloval | vysvětluje vysvětlují | vysvětlí vysvětlí | vysvětlit
stand stood stood | person animal | - | stál | - | stojí stojí | bude | stát
forget forgot forgotten about | person | na acc person thing idea part | zapomněl | - | zapomíná zapomínají | zapomene zapomenou | zapomenout
lend lent lent | person | give thing text vehicle | půjčil | půjčoval | půjčuje půjčují | půjčí půjčí | půjčit
invite | person | acc person | pozval | zval | zve zvou | pozve pozvou | pozvat
clean | person | acc room | uklidil | uklízel | uklízí uklízejí | uklidí uklidí | uklidit
attack | person animal | na acc person animal | zaútočil | útočil | útočí útočí | zaútočí zaútočí | zaútočit
solve | person | acc idea | vyřešil | řešil | řeší řeší | vyřeší vyřeší | vyřešit
travel travelled travelled | person | to | cestoval | - | cestuje cestují | bude | cestovat
bake | person | acc baked | upekl | pekl | peče pečou | upeče upečou | upéct
choose chose chosen | person | acc thing vehicle text food | vybral | vybíral | vybírá vybírají | vybere vyberou | vybrat
break broke broken | person animal | acc machine | rozbil | rozbíjel | rozbíjí rozbíjejí | rozbije rozbijí | rozbít
wake_up woke_up woken_up | person animal | - | probudil | probouzel | probouzí probouzejí | probudí probudí | probudit se
praise | person | acc person text idea | pochválil | chválil | chválí chválí | pochválí pochválí | pochválit
ask for | person | o acc thing food text | požádal | žádal | žádá žádají | požádá požádají | požádat
arrive | person | - | přijel | přijížděl | přijíždí přijíždějí | přijede přijedou | přijet
translate | person | acc text | přeložil | překládal | překládá překládají | přeloží přeloží | přeložit
destroy | person | acc building vehicle | zničil | ničil | ničí ničí | zničí zničí | zničit
close | person | acc open | zavřel | zavíral | zavírá zavírají | zavře zavřou | zavřít
avoid | person animal | dat person animal idea | vyhnul | vyhýbal | vyhýbá vyhýbají | vyhne vyhnou | vyhnout se
sing sang sung | person | - | zazpíval | zpíval | zpívá zpívají | zazpívá zazpívají | zazpívat
dream about | person | o loc person vehicle idea building | snil | - | sní sní | bude | snít
punish | person | acc person animal | potrestal | trestal | trestá trestají | potrestá potrestají | potrestat
greet | person | acc person | pozdravil | zdravil | zdraví zdraví | pozdraví pozdraví | pozdravit
discover | person | acc idea | objevil | objevoval | objevuje objevují | objeví objeví | objevit
cry | person | - | plakal | - | pláče pláčou | bude | plakat
fight fought fought against | person animal | proti dat person animal idea | bojoval | - | bojuje bojují | bude | bojovat
use | person | acc machine vehicle | použil | používal | používá používají | použije použijí | použít
admire | person | acc person building text landmark part | obdivoval | - | obdivuje obdivují | bude | obdivovat
deal dealt dealt with | person | ins idea | zabýval | - | zabývá zabývají | bude | zabývat se
hurry | person animal | to | spěchal | - | spěchá spěchají | bude | spěchat
decorate | person | acc building room | ozdobil | zdobil | zdobí zdobí | ozdobí ozdobí | ozdobit
resemble | person animal | dat person animal | podobal | - | podobá podobají | bude | podobat se
dance | person | - | zatančil | tančil | tančí tančí | zatančí zatančí | zatančit
threaten | person | dat person animal | pohrozil | hrozil | hrozí hrozí | pohrozí pohrozí | pohrozit
boast about | person | ins thing vehicle text | pochlubil | chlubil | chlubí chlubí | pochlubí pochlubí | pochlubit se
disappear | person animal | - | zmizel | mizel | mizí mizejí | zmizí zmizí | zmizet
"""

# With an infinitive; the columns are those of VERBS from the simple past on (``-``: the tense is not used).
MODALS = """
want_to wanted_to | chtěl | chce chtějí
can could | mohl | může mohou
have_to had_to | musel | musí musí
decide_to decided_to | rozhodl | - | se
refuse_to refused_to | odmítl | odmítá odmítají
"""

# With a clause: "says that ..." = "říká, že ...".
CLAUSE_VERBS = """
say said said | řekl | říká říkají
know knew known | věděl | ví vědí
think thought thought | myslel | myslí myslí | si
hope hoped hoped | doufal | doufá doufají
claim claimed claimed | tvrdil | tvrdí tvrdí
believe believed believed | věřil | věří věří
announce announced announced | oznámil | oznamuje oznamují
"""
