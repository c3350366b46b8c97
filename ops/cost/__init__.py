"""`cost`: what an environment costs a month, from its synthesized templates and a dated price file."""
