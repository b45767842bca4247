"""scripted_coder.py as a program that starts sooner: Python keeps what it compiled of what is imported only."""

from scripted_coder import main

main()
