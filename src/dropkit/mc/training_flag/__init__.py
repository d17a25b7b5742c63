"""Override of `self.training` for modules that gate dropout by it, while the model stays in evaluation mode.

Functions such as `F.dropout` take the flag as an argument, which the function mode rewrites in the call. Some modules
branch on their own flag in Python instead: timm's `DropPath`, attention with `dropout_p=p if self.training else 0`,
masks that a model makes itself. No call of theirs shows that there would be a dropout, so the module must read its flag
as true. Setting the flags of all modules would also switch batch norm, auxiliary heads, losses and moving averages, and
other threads would see it.

So `detection` reads the source of a class: it gates dropout if what depends on the flag mentions dropout or draws a
mask. `override` gives the modules of such a class, while a thread samples from them, a class whose `training` is a
property that is true in that thread alone.

Other modules keep their flag, and with it the noise that they add in training mode alone, which is no dropout.
`other_noise` finds it, so that a note can say that it stays off. It follows what `forward` calls; `function_source`
reads the source of each function, `liveness` leaves out the statements that do not change the result, and `conditions`
evaluates the tests around a draw for the module at hand, in both modes.
"""
