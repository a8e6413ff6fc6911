"""Make seattle-weather.csv: daily weather in Seattle, 2012 to 2015, and whether it rained.

Source: the vega_datasets package (``pip install vega_datasets``), which ships daily NOAA
observations; NOAA's data are in the public domain (https://www.weather.gov/disclaimer).

``rain`` is yes on a day with any precipitation. ``precipitation`` and the verbal ``weather`` of the
same day are left out, since either would give the answer away: what remains is to tell rain from
the date, the day's temperatures and the wind.
"""

from pathlib import Path

import polars
import vega_datasets

source = vega_datasets.local_data.seattle_weather.filepath
days = polars.read_csv(source)
days = days.with_columns(
    date=polars.col("date").str.replace_all("/", "-"),
    rain=polars.when(polars.col("precipitation") > 0)
    .then(polars.lit("yes"))
    .otherwise(polars.lit("no")),
).drop("precipitation", "weather")
path = Path(__file__).with_name("seattle-weather.csv")
days.write_csv(path)
print(f"{path.name}: {days.height} days, rain on {(days['rain'] == 'yes').sum()}")
