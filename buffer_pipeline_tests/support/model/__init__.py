"""The rules of the books a second time, in plain Python: no database, and none of the verbs' code.

The state machine (test_machine.py) makes the same calls on this and on the real books, and the two must
agree. So the
model follows the written rules, not the statements. A violation raises the same class of refusal as the
books, with
a short reason as its message. Ids are those that the real books gave, in their order. Amounts are minor
units, except
in arguments, where they are text as a platform writes them.
"""
