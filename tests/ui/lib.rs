//! A package of its own, because its cases are compiled anew with all that it depends on.
