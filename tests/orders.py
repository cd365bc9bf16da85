"""A command set with slots, repetition and order, for the tests of both searches."""

import tomllib

ORDERS = tomllib.loads("""
max_command_duration_s = 12
[slots]
drink = ["latte", "flat white", "espresso"]
size = { small = ["small", "little"], large = "large|big" }
[parts]
milk = "(no|some) milk"
[[command]]
name = "order"
phrases = ["[can i get] [a] [{size}] {drink} [with [{shots:number(0..10)} shots & <milk> & {sugar:digit} sugars]]"]
[[command]]
name = "level"
phrases = ["set lamp to {level:number} percent"]
[[command]]
name = "dial"
phrases = ["dial {who:digits}"]
[[command]]
name = "add"
phrases = ["add ([and] {drink})+"]
[[command]]
name = "stop"
phrases = ["stop [it]"]
""")
