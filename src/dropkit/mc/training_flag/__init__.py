"""Override of `self.training` for modules that gate dropout by it, while the model stays in evaluation mode.

Functions such as `F.dropout` take the flag as an argument, which the function mode rewrites in the call. Some modules
branch on their own flag in Python instead: timm's `DropPath`, attention with `dropout_p=p if self.training else 0`,
masks that a model makes itself. No call of theirs shows that there would be a dropout, so the module must read its flag
as true. Setting the flags of all modules would also switch batch norm, auxiliary heads, losses and moving averages, and
other threads would see it.

So `detection` reads the source of a class: it gates dropout if what depends on the flag mentions dropout or draws a
mask. While a thread samples from a module of such a class, `override` replaces the module's class by one in which
`training` is a property that is true in that thread alone.

Other modules keep their flag, so that noise which they add in training mode alone stays off. `other_noise` finds it for
a note. It follows what `forward` calls, in both modes: `function_source` reads the source of a function, `known_values`
evaluates its expressions for the module at hand, and `reached` finds those that run, and have an effect on the result.
"""
