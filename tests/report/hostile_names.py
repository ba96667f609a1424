"""Names of classes and layers that would be more than names wherever they are not written with care."""

SCRIPT = "document.documentElement.dataset.ran=1"
CLASSES = (
    f"<script>{SCRIPT}</script>",
    f"</script><script>{SCRIPT}</script>",
    f"</style><script>{SCRIPT}</script>",
    f'"><img src=x onerror={SCRIPT}>',
    f"' onfocus='{SCRIPT}' autofocus='",
    f"<svg onload={SCRIPT}>",
    f"javascript:{SCRIPT}",
    f"<!--<script>{SCRIPT}//-->",
    "{{ 7 * 7 }}{% raw %}",
    "$\\input{/etc/passwd}$ $\\frac{1}$",
    "=cmd|' /C calc'!A0",
    "+1+cmd",
    "-2+3",
    "@SUM(1)",
    "\x1b[31mred\x1b]0;title\x07",
    "txt.\u202eexe",
    "line\u2028break\r\n<b>",
    "half \udcff",
    "a\x00b",
    "../../../outside",
)
LAYERS = ("<script>a</script>", '"><script>b</script>', "$x$", "../../half \udcff\x1b[2J")
