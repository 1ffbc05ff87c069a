"""After how many finished requests should a server stop decoding and prefill new ones?"""
