"""What people put into their sentences: times, names, songs, groceries and the rest.

A filler is a template itself (see `grammar`), so that ``<time>`` may be built from ``<hour>`` and ``<minute>``.
"""

from __future__ import annotations

from functools import cache

from .grammar import Node, parse


def _words(text: str) -> tuple[str, ...]:
    """The comma-separated fillers of `text`."""
    return tuple(" ".join(part.split()) for part in text.split(","))


SLOTS: dict[str, tuple[str, ...]] = {
    # --- when ---------------------------------------------------------------------------------------------------
    "hour": _words("1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12"),
    "hour_word": _words("one, two, three, four, five, six, seven, eight, nine, ten, eleven, twelve"),
    "minute": _words("05, 10, 15, 20, 25, 30, 30, 35, 40, 45, 50, 55, 17, 42"),
    "minute_word": _words("fifteen, twenty, thirty, thirty, forty, forty five, fifty, oh five, ten"),
    "time": (
        "<hour>",
        "<hour> {am|pm}",
        "<hour> {am|pm}",
        "<hour>:<minute>",
        "<hour>:<minute> {am|pm}",
        "<hour> <minute>",
        "<hour_word> <minute_word>",
        "<hour_word> <minute_word> {am|pm}",
        "half past <hour_word>",
        "quarter {past|to} <hour_word>",
        "<hour_word> o'clock",
        "{<hour_word>|<hour_word> {am|pm}}",
        "{{6|7|8|nine} in the morning|{2|3|four} in the afternoon|{6|7|eight} in the evening}",
        "{noon|midday|midnight}",
    ),
    "weekday": _words("monday, tuesday, wednesday, thursday, friday, saturday, sunday"),
    "month": _words("january, february, march, april, may, june, july, august, september, october, november, december"),
    "ordinal": _words(
        "first, second, third, fourth, fifth, ninth, tenth, twelfth, fifteenth, twentieth, 3rd, 7th, 14th, 18th, 21st,"
        "26th, 30th"
    ),
    "date": ("the <ordinal> of <month>", "<month> <ordinal>", "the <ordinal>", "<month> the <ordinal>"),
    "day": (
        "tomorrow",
        "tomorrow",
        "on <weekday>",
        "on <weekday>",
        "this <weekday>",
        "next <weekday>",
        "on <date>",
        "the day after tomorrow",
    ),
    "day_name": (
        "tomorrow",
        "today",
        "<weekday>",
        "<weekday>",
        "next <weekday>",
        "<date>",
        "this weekend",
        "next week",
    ),
    "when": (
        "<day>",
        "<day>",
        "<day> at <time>",
        "<day> at <time>",
        "at <time>",
        "{tomorrow|<weekday>} {morning|afternoon|evening}",
        "{tonight|later today|this evening|this afternoon}",
    ),
    "count_word": _words(
        "two, three, four, five, six, eight, ten, twelve, fifteen, twenty, twenty five, thirty, forty"
    ),
    "count": _words("2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 15, 18, 20, 25, 30, 35, 40, 45, 50, 90"),
    "duration": (
        "{<count>|<count_word>} minutes",
        "{<count>|<count_word>} minutes",
        "{<count>|<count_word>} minutes",
        "{<count>|<count_word>} {seconds|mins}",
        "{2|3|4|6|two|three} hours",
        "{an|one} hour",
        "half an hour",
        "an hour and a half",
        "{one|an} hour and <count_word> minutes",
        "a {minute|minute and a half|couple of minutes}",
        "three quarters of an hour",
    ),
    "span": (
        "{<count>|<count_word>} minute",
        "{<count>|<count_word>} minute",
        "{<count>|<count_word>} minute",
        "{30|45|90|sixty|ninety} second",
        "{one|two|three|1|2} hour",
        "half hour",
    ),
    # --- who ----------------------------------------------------------------------------------------------------
    "name": _words(
        "anna, ben, carlos, chloe, daniel, emma, fatima, george, hannah, ivan, james, julia, kofi, laura, liam, lucy,"
        "maria, martin, mehmet, mia, nadia, nina, noah, olivia, oscar, paul, priya, rachel, sam, sofia, steve, thomas,"
        "tina, victor, wei, yuki, zara, ahmed, beth, dave"
    ),
    "person": (
        "<name>",
        "<name>",
        "<name>",
        "<name>",
        "{mum|mom|dad|grandma|grandpa}",
        "my {mum|mother|dad|sister|brother|wife|husband|boss|neighbour|son|daughter|girlfriend|boyfriend|flatmate}",
        "{aunt|auntie} {rosa|mary|nadia|helen|priya}",
        "{doctor|dr} {patel|lewis|novak|chen|garcia}",
        "uncle {tom|bob|mehmet|vernon|kofi}",
        "{mr|mrs|miss} {jones|brown|kowalski|singh|taylor}",
        "the {landlord|plumber|babysitter|dentist|vet}",
    ),
    # --- where --------------------------------------------------------------------------------------------------
    "city": _words(
        "london, paris, berlin, new york, tokyo, madrid, rome, sydney, boston, chicago, dublin, edinburgh, lisbon,"
        "vienna, prague, oslo, toronto, mumbai, cairo, nairobi, seattle, istanbul, athens, manchester, bristol, leeds,"
        "san francisco, singapore, warsaw, hong kong, lagos, denver"
    ),
    "destination": (
        "<city>",
        "{work|the office|mum's house|my parents' place|<name>'s house|<name>'s place}",
        "the {airport|station|train station|hospital|gym|library|stadium|city centre|beach|post office}",
        "the nearest {petrol station|gas station|pharmacy|car park|supermarket}",
        "<count> {park|church|station|king|mill|oak} {road|street|lane|avenue}",
    ),
    "place_kind": _words(
        "restaurant, coffee shop, cafe, pharmacy, petrol station, gas station, cash machine, atm, supermarket, bakery,"
        "pizza place, sushi restaurant, thai restaurant, burger place, hairdresser, bookshop, hardware store, pub, bar,"
        "hotel, car park, swimming pool, vegan restaurant, charging station, dry cleaner, bike shop"
    ),
    "road": (
        "the {motorway|ring road|bridge|high street|highway|m25|a1|m6|i 95|one oh one|tunnel}",
        "the {road|way} to {work|<city>|the airport|school}",
    ),
    "room": _words(
        "kitchen, bedroom, living room, bathroom, hallway, office, study, garage, dining room, kids' room, nursery,"
        "basement, attic, guest room, conservatory, utility room, loft, playroom"
    ),
    "door": _words(
        "front door, back door, garage door, side door, patio door, main door, shed, cellar door, porch door,"
        "side gate, garden gate, door"
    ),
    # --- sound --------------------------------------------------------------------------------------------------
    "song": _words(
        "bohemian rhapsody, yesterday, imagine, hey jude, thriller, rolling in the deep, wonderwall, take on me,"
        "dancing queen, smells like teen spirit, hotel california, purple rain, billie jean, africa, let it be,"
        "mr brightside, shake it off, blinding lights, stayin' alive, wake me up, here comes the sun, call me maybe,"
        "telephone, hello, yellow, the final countdown, rain on me, sweet caroline, fast car, jolene"
    ),
    "artist": _words(
        "queen, abba, the beatles, adele, taylor swift, coldplay, beyonce, radiohead, bob marley, david bowie, drake,"
        "dua lipa, ed sheeran, elton john, miles davis, nina simone, oasis, prince, rihanna, stevie wonder, u2, mozart,"
        "the rolling stones, kendrick lamar, fleetwood mac, daft punk, billie eilish, bach"
    ),
    "genre": _words(
        "jazz, rock, classical, hip hop, country, techno, reggae, blues, pop, soul, metal, folk, salsa, lo fi, disco,"
        "indie, punk, ambient, opera, drum and bass, eighties, nineties, christmas"
    ),
    "playlist": _words(
        "workout, running, dinner party, chill, road trip, focus, study, party, sunday morning, summer, sleep,"
        "cooking, favourites, cleaning, wedding, throwback"
    ),
    "sound": _words("music, song, radio, podcast, tv, speaker, sound, audiobook, film, movie, call, video"),
    "level": _words("3, 4, 5, 6, 7, 8, five, seven, eight, 60 percent, 70 percent, 80 percent, eighty percent"),
    "low_level": _words("1, 2, 3, one, two, 10 percent, 15 percent, 20 percent, 30 percent, twenty percent"),
    # --- home ---------------------------------------------------------------------------------------------------
    "lamp": (
        "<room> {light|lights|lamp}",
        "<room> {light|lights}",
        "{light|lights} in the <room>",
        "{light|lights|lamp} {upstairs|downstairs|outside}",
        "{lights|light|desk lamp|bedside lamp|floor lamp|ceiling light|fairy lights|reading light|christmas lights}",
    ),
    "percent": _words("10, 15, 20, 25, 30, 40, 50, 60, ten, twenty, thirty, forty, fifty, sixty"),
    "degrees": (
        "{16|17|18|19|20|21|22|23|24|eighteen|nineteen|twenty|twenty one|twenty two} [degrees]",
        "{65|66|68|69|70|71|72|74} [degrees]",
    ),
    # --- tasks and texts ----------------------------------------------------------------------------------------
    "task": (
        "take the {bins|rubbish|trash|recycling} out",
        "call {<person>|the bank|the garage|the insurance people}",
        "buy {<item>|stamps|a birthday card|new light bulbs}",
        "water the {plants|garden|tomatoes}",
        "pay the {rent|gas bill|phone bill|electricity bill|parking fine}",
        "pick up {the kids|<name>|the dry cleaning|my prescription|the cake}",
        "take my {pills|medicine|vitamins|antibiotics}",
        "{email|text|ring} {<person>|my accountant}",
        "book {a table|the flights|a haircut|the hotel}",
        "{feed|walk} the {dog|cat}",
        "{defrost|marinate} the {chicken|fish|meat}",
        "{renew|return} the {library books|passport|car insurance|parcel}",
        "{hang out|move|empty} the {washing|laundry|dishwasher}",
        "{charge|clean} the {car|bike lights|drill|grill}",
        "{finish|hand in|print} the {report|essay|tax form|slides}",
        "{check|turn off} the {oven|heating|tyres|smoke alarm}",
        "wish <name> a happy birthday",
        "cancel {my gym membership|the free trial}",
    ),
    "event": (
        "{dentist|doctor's|hair|eye|vet} appointment",
        "{team|sales|budget|project|board|planning} meeting",
        "{lunch|dinner|coffee|breakfast} with <person>",
        "{call|meeting|catch up|interview} with <person>",
        "{yoga|pilates|piano|spanish|swimming|driving} {class|lesson}",
        "{parents evening|school play|book club|choir practice|football match|job interview}",
        "{birthday party|wedding|leaving do|graduation|barbecue|picnic} {with|for} <name>",
        "flight to <city>",
    ),
    "item": _words(
        "milk, eggs, bread, butter, bananas, tomatoes, coffee, tea bags, olive oil, rice, pasta, cheese, onions,"
        "garlic, toilet paper, washing up liquid, dog food, cat litter, batteries, yoghurt, apples, a dozen eggs,"
        "two lemons, chicken breasts, orange juice, shampoo, nappies, flour, sugar, a bag of potatoes,"
        "some salmon, peanut butter, spinach, kitchen roll, chocolate, six beers, red wine, tinned tomatoes"
    ),
    "list": (
        "{shopping|grocery|groceries} list",
        "shopping list",
        "{packing|holiday|wish|camping|food|party} list",
    ),
    "thought": (
        "the {wifi password|gate code|alarm code|locker number} is {<number>|blue <number>|on the fridge}",
        "{parked|the car is} on level {two|three|4|5}",
        "<name> {likes|hates|is allergic to} {peanuts|coriander|cats|jazz|mushrooms}",
        "the {plumber|electrician|painter} charged {<number>|two hundred|eighty five} {pounds|dollars|euros}",
        "{idea for|ideas for} the {book|garden|presentation|logo|birthday party}",
        "{meter reading|mileage} is <number>",
        "try the {ramen|curry|pancakes|tapas} {place|bar} near <destination>",
        "ask <person> about the {invoice|holiday|keys|boiler}",
        "{shoe|ring|shirt|coat} size {six|7|nine|forty two|medium}",
    ),
    "statement": (
        "i'm running {late|<duration> late}",
        "{i'm|we're} on {my|our|the} way",
        "i'll be {there|home} {by <time>|in <duration>|soon}",
        "{dinner|lunch} is {ready|at <time>}",
        "i {love|miss} {you|them}",
        "the {train|bus|flight} is {late|cancelled|delayed}",
        "i got {home|here} {safely|fine}",
        "{i|we} {can't come|won't make it|can't make it} {tonight|on <weekday>|tomorrow}",
        "the {keys|tickets|parcels} are {in the <room>|with <name>|on the table}",
        "i {found|forgot|bought} the {keys|tickets|<item>}",
    ),
    "message": (
        "<statement>",
        "<statement>",
        "{happy birthday|congratulations|get well soon|merry christmas|sorry}",
        "{don't|please don't} forget {the keys|the <item>|the tickets|your passport}",
        "{can you|could you} {<task>|call me|pick me up}",
        "{are we still|are you} on for {tonight|<weekday>|dinner}",
        "{where are you|what time are you coming|did you lock the door|do we need <item>}",
        "see you {at <time>|on <weekday>|tomorrow}",
        "good luck {today|with the interview|tomorrow}",
        "turn the {oven|heating|lights} off",
    ),
    "app": _words("whatsapp, text, sms, email, signal, telegram, messenger"),
    # --- the world ----------------------------------------------------------------------------------------------
    "language": _words(
        "french, spanish, german, italian, japanese, portuguese, mandarin, chinese, arabic, polish, turkish, russian,"
        "korean, hindi, greek, dutch, swedish, czech, finnish, hungarian, welsh, swahili"
    ),
    "phrase": _words(
        "good morning, thank you, where is the station, how much is this, i am hungry, cheers, the bill please,"
        "i love you, happy birthday, where is the bathroom, excuse me, i don't understand, one beer please,"
        "good night, nice to meet you, i am lost, do you speak english, two tickets please, is it far, water, help,"
        "i am allergic to nuts, my name is anna, cat, bread, umbrella, hello, turn left, call a doctor"
    ),
    "topic": _words(
        "politics, business, technology, science, health, sports, the election, the economy, climate, space, football,"
        "the stock market, europe, the strike, entertainment, the elections in france, education, the budget, ai, local"
    ),
    "team": _words(
        "arsenal, liverpool, chelsea, real madrid, barcelona, bayern, the lakers, the yankees, the red sox, celtic,"
        "england, brazil, india, the giants, the warriors, manchester united, the cubs, juventus, ireland, ajax,"
        "the patriots, leeds, the bulls, the all blacks"
    ),
    "club": _words(
        "arsenal, liverpool, chelsea, real madrid, barcelona, bayern, celtic, juventus, ajax, porto, leeds, inter"
    ),
    "cup": _words("premier league, champions league, world cup, fa cup, la liga, bundesliga, europa league"),
    "league": _words(
        "premier league, champions league, nba, nfl, world cup, formula one, la liga, bundesliga, wimbledon,"
        "six nations, ashes, super bowl, grand prix, tour de france"
    ),
    "weather": _words(
        "rain, snow, be sunny, be windy, be cold, be hot, freeze, be foggy, hail, be warm, be cloudy, thunder, be icy,"
        "be humid, be dry"
    ),
    "gear": _words(
        "an umbrella, a coat, a raincoat, a jacket, a hat, a scarf, a jumper, sunglasses, sun cream, wellies, gloves"
    ),
    # --- figures ------------------------------------------------------------------------------------------------
    "number": (
        *_words("7, 9, 12, 13, 15, 17, 24, 32, 37, 45, 48, 56, 64, 72, 75, 88, 96, 99, 110, 125, 144, 150, 180, 225"),
        *_words("240, 256, 310, 360, 475, 512, 640, 999, 1200, 2500, seven, nine, twelve, fifteen, eighty, a hundred"),
    ),
    "sum": (
        "<number> {plus|minus|times|divided by|multiplied by} <number>",
        "<number> {plus|minus|times} <number>",
        "{5|10|15|20|twenty|12.5} percent of <number>",
        "<number> {x|+|-|/} <number>",
        "<number> plus <number> {plus|minus} <number>",
        "the square root of {49|64|81|121|144|169|400|two}",
        "{half|a third|a quarter|two thirds} of <number>",
        "{3|4|5|7|12} squared",
    ),
    "distance": _words("miles, kilometres, metres, feet, inches, yards, centimetres"),
    "weight": _words("pounds, kilos, grams, ounces, stone"),
    "volume": _words("cups, litres, pints, gallons, tablespoons, millilitres"),
    "temperature": _words("celsius, fahrenheit, degrees celsius, degrees fahrenheit"),
    "money": _words("dollars, euros, pounds, yen, rupees, swiss francs, kroner, pesos"),
    "one_distance": _words("mile, kilometre, foot, yard, inch, metre"),
    "one_weight": _words("pound, kilo, stone, ounce"),
    "one_volume": _words("cup, litre, pint, gallon, tablespoon"),
    # --- gadgets ------------------------------------------------------------------------------------------------
    "gadget": _words(
        "speaker, car, keyboard, soundbar, watch, headset, hearing aid, mouse, printer, fitness band,"
        "kitchen speaker, game controller, laptop"
    ),
    "screen": _words("screen, display, phone screen, tablet, tv screen, monitor"),
}


@cache
def slot_table() -> dict[str, tuple[Node, ...]]:
    """`SLOTS`, parsed once."""
    return {name: tuple(parse(filler) for filler in fillers) for name, fillers in SLOTS.items()}
