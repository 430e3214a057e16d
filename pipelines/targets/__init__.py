"""One file per place a run can go; each takes a compiled spec and answers with a run record."""
