"""What runs inside the Airflow image besides Airflow itself."""
