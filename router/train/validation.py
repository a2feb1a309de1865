Report=None
def cross_validate(p): pass
