# Sourced: lets uv use the package index and wheel folder that pip is configured with.
settings=$(python3 -m pip config list 2>/dev/null || true)
pip_setting() { sed -n "s/^[^=]*\.$1='\(.*\)'\$/\1/p" <<<"$settings" | head -n 1; }
UV_FIND_LINKS=${UV_FIND_LINKS:-$(pip_setting find-links)}
UV_DEFAULT_INDEX=${UV_DEFAULT_INDEX:-$(pip_setting index-url)}
[ -n "$UV_FIND_LINKS" ] && export UV_FIND_LINKS || unset UV_FIND_LINKS
[ -n "$UV_DEFAULT_INDEX" ] && export UV_DEFAULT_INDEX || unset UV_DEFAULT_INDEX
