//! A user-space hop that carries connections and can hurt them. Needs no privilege.
