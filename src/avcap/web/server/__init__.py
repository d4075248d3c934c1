"""`avcap serve`: a captioner behind the API that OpenAI's clients speak, and a page for people.

    body --call--> Call --parts, fetch--> files --media--> Clip --queue, model--> Response --reply--> JSON or events

Whatever comes in is untrusted. One file for each step; app.py joins them.
"""
