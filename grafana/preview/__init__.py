"""
Previews: what the dashboards look like, roughly, drawn without Grafana.

    draw.py    asks Prometheus what the panels ask, and has a headless Chromium take the picture
    page.js    lays the panels out and draws them, with uPlot for graphs
    page.css   how it looks

They are for the eyes: is a panel empty, a unit silly, a legend too long? Grafana draws finer, and may draw differently.
"""
