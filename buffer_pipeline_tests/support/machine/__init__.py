"""The state machine that runs random sequences of verbs on the real books and on the model
(test_machine.py).
"""
