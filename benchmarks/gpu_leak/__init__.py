"""GPU seconds that are leaked or paid twice, ours and the stock operators', on real Airflow processes."""
