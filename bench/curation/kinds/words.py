"""The words that questions are about."""


def _split(text: str, separator: str | None = None) -> tuple[str, ...]:
    return tuple(text.split(separator))


NAMES = _split(
    "Ada Ali Amir Anna Ben Bo Carla Chen Clara Dana David Elif Emma Erik Farah Felix Gita Hana "
    "Hugo Ida Ines Ivan Jana Jonas Kai Karim Lena Leo Lina Luca Maja Marek Mia "
    "Milan Nadia Nils Nora Olga Omar Paul Petra Rana Rosa Sami Sara Sven Tara Theo Tom "
    "Uma Vera Viktor Yara Yusuf Zoe"
)
THINGS = _split(
    "apple badge ball basket bean bell bottle button candle card chair coin cookie cup egg feather "
    "flower jar key lamp lemon letter marble nail notebook nut orange pear pen pencil plate "
    "postcard ribbon ring rope seed shell spoon stamp sticker stone ticket tile towel toy"
)
PLACES = _split(
    "at the market, in the garden, at school, in the kitchen, at the harbour, in the workshop, "
    "at the station, in the library, on the farm, at the fair, in the office, in the attic, "
    "at the museum, on the ferry, in the shop, at the camp",
    ", ",
)
WORDS = _split(
    "anchor animal balance banana barrel blanket bottle bridge button cabbage camera candle carpet "
    "castle cheese cherry circle coffee corner cotton curtain dragon engine feather finger forest "
    "garden ginger hammer harbour insect island jacket kettle kitten ladder lantern lemon letter "
    "marble market meadow mirror monkey mountain needle orange orchard parrot pebble pencil pepper "
    "pillow planet pocket rabbit ribbon river rocket saddle school shadow silver spider "
    "spring station stone summer sunset table teacher thunder ticket tomato "
    "travel tunnel turtle umbrella valley velvet village violin wagon walnut water weather "
    "whistle window winter wonder yellow zebra"
)
HOBBIES = _split("chess football painting swimming singing cycling cooking dancing hiking reading")
ADJECTIVES = (
    ("older", "oldest", "youngest"),
    ("taller", "tallest", "shortest"),
    ("faster", "fastest", "slowest"),
    ("heavier", "heaviest", "lightest"),
    ("richer", "richest", "poorest"),
)
DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
MONTHS = (
    ("January", 31), ("February", 28), ("March", 31), ("April", 30), ("May", 31), ("June", 30),
    ("July", 31), ("August", 31), ("September", 30), ("October", 31), ("November", 30),
    ("December", 31),
)  # fmt: skip
