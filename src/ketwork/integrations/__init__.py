"""Callbacks for other libraries' training loops: `lightning` and `transformers`. Each module needs its library.

May import `networks`. Nothing in the library imports these modules: users do.
"""
