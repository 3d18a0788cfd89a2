"""Misspellings, as thumbs and speech recognisers make them."""

from __future__ import annotations

from random import Random

from .grammar import pick

_ROWS = ("qwertyuiop", "asdfghjkl", "zxcvbnm")


def _adjacent_keys() -> dict[str, str]:
    """The keys beside each key of a QWERTY keyboard, those of the next row included, in a fixed order."""
    near: dict[str, str] = {}
    for y, row in enumerate(_ROWS):
        for x, key in enumerate(row):
            # Every row sits about half a key to the right of the one above.
            spots = ((y, x - 1), (y, x + 1), (y - 1, x), (y - 1, x + 1), (y + 1, x - 1), (y + 1, x))
            near[key] = "".join(_ROWS[b][a] for b, a in spots if 0 <= b < len(_ROWS) and 0 <= a < len(_ROWS[b]))
    return near


_NEAR = _adjacent_keys()

# What people write, and what recognisers hear, for a word of ours. Several wrong forms are separated by bars.
_KNOWN: dict[str, str] = {
    "air": "heir|are",
    "alarm": "alarum|alram|a larm",
    "appointment": "apointment|appointmant",
    "battery": "batery|battry",
    "birthday": "birtday|brithday",
    "bluetooth": "blue tooth|bluetoth",
    "brightness": "brighness|britness",
    "buy": "by|bye",
    "calendar": "calender|calandar",
    "cancel": "cancle|cansel",
    "cancelled": "canceled|cancled",
    "celsius": "celcius",
    "convert": "covert",
    "degrees": "degreas|degress",
    "dim": "dimm",
    "eight": "ate",
    "fahrenheit": "farenheit",
    "february": "febuary",
    "four": "for",
    "groceries": "grocerys",
    "heating": "eating|heeting",
    "hour": "our",
    "japanese": "japaneese",
    "kitchen": "kichen|kitchin",
    "kilometres": "kilometers",
    "language": "langauge",
    "lights": "lites|ligths",
    "litres": "liters",
    "mail": "male",
    "meet": "meat",
    "meeting": "meating|meeeting",
    "message": "mesage|massage",
    "messages": "mesages|massages",
    "minutes": "minuets|minuts|minites",
    "need": "knead|ned",
    "news": "gnus|newz",
    "nine": "nein",
    "one": "won",
    "percent": "per cent|percant",
    "pharmacy": "farmacy",
    "photo": "foto",
    "playlist": "play list|playlits",
    "please": "pleese|pls|plz",
    "read": "red|reed",
    "remind": "re mind|remaind",
    "reminder": "remainder|remider",
    "restaurant": "restaraunt|resturant",
    "right": "write",
    "route": "root",
    "schedule": "shedule|schedual",
    "song": "sung",
    "sunday": "sundae",
    "temperature": "temprature|tempature",
    "thanks": "thx|tanks",
    "their": "there",
    "thermostat": "thermostate|termostat",
    "thursday": "thirsday",
    "timer": "time her|tymer",
    "tomorrow": "tommorow|tomorow|tmrw|to morrow",
    "tonight": "tonite|2night",
    "too": "to",
    "traffic": "trafic|traffick",
    "translate": "transalte|translait",
    "tuesday": "teusday|chews day",
    "turn": "tern",
    "two": "to|too",
    "unlock": "un lock",
    "vacuum": "vaccum|vacume",
    "volume": "volum|volumn",
    "wait": "weight",
    "wake": "wakey|weak",
    "weather": "whether|wether",
    "wednesday": "wensday|wednsday",
    "week": "weak",
    "wifi": "wi fi|why fi",
    "write": "right",
    "you're": "your",
    "yoghurt": "yogurt",
}
_WRONG = {right: tuple(wrong.split("|")) for right, wrong in _KNOWN.items()}

# Short words carry the meaning ("on", "off", "up"): letters are only changed in longer ones.
_LETTERS_FROM = 4


def misspell(text: str, rng: Random) -> str:
    """`text` with one mistake in it, sometimes two; as it was where no word offers itself.

    Args:
        text: lower-case words, separated by single spaces.
        rng: only its `random` method is used.
    """
    mistakes = 2 if rng.random() < 0.2 else 1
    for _ in range(mistakes):
        text = _one_mistake(text, rng)
    return text


def _one_mistake(text: str, rng: Random) -> str:
    words = text.split(" ")
    known = [i for i, word in enumerate(words) if word in _WRONG]
    if known and rng.random() < 0.4:
        at = pick(rng, known)
        words[at] = pick(rng, _WRONG[words[at]])
        return " ".join(words)
    apostrophes = [i for i, word in enumerate(words) if "'" in word]
    if apostrophes and rng.random() < 0.3:
        at = pick(rng, apostrophes)
        words[at] = words[at].replace("'", "")
        return " ".join(words)
    long = [i for i, word in enumerate(words) if len(word) >= _LETTERS_FROM and word.isascii() and word.isalpha()]
    if not long:
        return text
    at = pick(rng, long)
    if len(words) > 2 and at and rng.random() < 0.08:
        words[at - 1 : at + 1] = [words[at - 1] + words[at]]
    else:
        words[at] = _typo(words[at], rng)
    return " ".join(words)


def _typo(word: str, rng: Random) -> str:
    """`word` (four letters or more) with one slip of the fingers."""
    at = 1 + int(rng.random() * (len(word) - 1))  # The first letter is seldom wrong.
    slip = rng.random()
    if slip < 0.3:
        return word[:at] + pick(rng, _NEAR[word[at]]) + word[at + 1 :]
    if slip < 0.6:
        return word[:at] + word[at + 1 :]
    if slip < 0.75:
        return word[:at] + word[at] + word[at:]
    # Two letters change places; where they are the same, one of them is lost, as it goes with double letters.
    left = max(at - 1, 1)
    swapped = word[left + 1] if word[left] == word[left + 1] else word[left + 1] + word[left]
    return word[:left] + swapped + word[left + 2 :]
