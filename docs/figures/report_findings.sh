#!/bin/sh
# The top of the report of `make example`, as the guide to the analysis shows it: run this in the root of the repository.
chromium --headless --no-sandbox --disable-gpu --hide-scrollbars --window-size=1000,870 \
    --screenshot=docs/figures/report_findings.png "file://$PWD/report/report.html"
