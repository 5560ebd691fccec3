"""The human study of section 4.2.2: two-alternative forced choice, from folders of images to fool rates.

config.py     what is declared beforehand          design.py     which subject sees which image on which side
freeze.py     `sr3 study new`: folders -> a study  study_folder.py  a study folder and its files
pictures.py   uniform re-encoding of images        tokens.py     one-time signed tokens
database.py   tables, SQLite and PostgreSQL        visits.py     what a participant may do, without HTTP
server.py     `sr3 study serve`                    results.py    `sr3 study results`; figures.py draws them
"""
