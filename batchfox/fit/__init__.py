"""Media made to fit, in processes of their own: what decodes strangers' files can be killed without harm."""
