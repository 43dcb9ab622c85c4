"""Names: of people (English | Czech | declension model | pronoun | Czech possessive adjective) and of places.

A place is English | Czech | model | exceptions as in ``lexicon_nouns``; it is used in the singular, but for a name
that Czech has in the plural only (Čechy), marked with ``plural``.
"""

PEOPLE = """
Peter | Petr | pán | he | Petrův
Jane | Jana | žena | she | Janin
Paul | Pavel:Pavl | pán | he | Pavlův
Mary | Marie | růže | she | Mariin
Thomas | Tomáš | muž | he | Tomášův
Anna | Anna | žena | she | Annin
Martin | Martin | pán | he | Martinův
Eve | Eva | žena | she | Evin
Charles | Karel:Karl | pán | he | Karlův
Lucy | Lucie | růže | she | Luciin
Joseph | Josef | pán | he | Josefův
Helen | Helena | žena | she | Helenin
Jacob | Jakub | pán | he | Jakubův
Catherine | Kateřina | žena | she | Kateřinin
Luke | Lukáš | muž | he | Lukášův
Veronica | Veronika | žena | she | Veroničin
Michael | Michal | pán | he | Michalův
Barbara | Barbora | žena | she | Barbořin
Philip | Filip | pán | he | Filipův
Theresa | Tereza | žena | she | Terezin
Andrew | Ondřej | muž | he | Ondřejův
Hannah | Hana | žena | she | Hanin
Matthew | Matěj | muž | he | Matějův
Monica | Monika | žena | she | Moničin
Simon | Šimon | pán | he | Šimonův
Clara | Klára | žena | she | Klářin
Frank | František:Františk | pán | he | Františkův
Margaret | Markéta | žena | she | Markétin
Wenceslas | Václav | pán | he | Václavův
Sophia | Žofie | růže | she | Žofiin
Nicholas | Mikuláš | muž | he | Mikulášův
"""

PLACES = """
Prague | Praha | žena
Brno | Brno | město
London | Londýn | hrad | gs=-a ls=-~e
Germany | Německo | město | ls=-u
Paris | Paříž | píseň
France | Francie | růže
Vienna | Vídeň:Vídn | píseň
Rome | Řím | hrad | gs=-a ls=-~e
Poland | Polsko | město | ls=-u
Bohemia | Čechy:Čech | žena | plural
Berlin | Berlín | hrad | gs=-a ls=-~e
Italy | Itálie | růže
Europe | Evropa | žena
Spain | Španělsko | město | ls=-u
America | Amerika | žena
Pilsen | Plzeň:Plzn | píseň
Hungary | Maďarsko | město | ls=-u
"""
