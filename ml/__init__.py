"""Code that runs inside SageMaker jobs. Nothing here knows Airflow."""
